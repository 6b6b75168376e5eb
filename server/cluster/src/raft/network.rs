//! What Raft sends to other nodes, as requests of [`crate::rpc`].

use std::future::Future;
use std::sync::Arc;

use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};

use super::{Snapshot, Types, Vote, uid_of};
use crate::peers::{CallError, Peers};
use crate::rpc::{Request, Response};
use crate::state::NodeUid;

/// A node that did not answer is asked again after this.
const BACKOFF: std::time::Duration = std::time::Duration::from_millis(200);

/// A snapshot is larger than what heartbeats have time for.
const SNAPSHOT_TIME: std::time::Duration = std::time::Duration::from_secs(20);

#[derive(Clone)]
pub struct Network(pub Arc<Peers>);

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Client {
        Client { peers: Arc::clone(&self.0), target, address: node.addr.clone() }
    }
}

pub struct Client {
    peers: Arc<Peers>,
    target: u64,
    /// By Raft's membership, for a node that the state does not know yet.
    address: String,
}

type Failure<E> = RPCError<u64, BasicNode, RaftError<u64, E>>;

impl Client {
    fn node(&self) -> NodeUid {
        uid_of(self.target)
    }

    async fn call(&self, request: Request, option: &RPCOption) -> Result<Response, CallError> {
        self.peers.call(self.node(), &self.address, &request, option.hard_ttl()).await
    }

    fn remote<E: std::error::Error>(&self, error: RaftError<u64, E>) -> Failure<E> {
        RPCError::RemoteError(RemoteError::new(self.target, error))
    }
}

fn failed<E: std::error::Error>(error: &CallError) -> Failure<E> {
    match error {
        CallError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(error)),
        _ => RPCError::Network(NetworkError::new(error)),
    }
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure<openraft::error::Infallible>> {
        match self.call(Request::Append(rpc), &option).await {
            Ok(Response::Append(answer)) => answer.map_err(|error| self.remote(error)),
            Ok(_) => Err(failed(&CallError::Protocol)),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failure<openraft::error::Infallible>> {
        match self.call(Request::Vote(rpc), &option).await {
            Ok(Response::Vote(answer)) => answer.map_err(|error| self.remote(error)),
            Ok(_) => Err(failed(&CallError::Protocol)),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let Ok(body) = String::from_utf8(*snapshot.snapshot) else {
            return Err(StreamingError::Network(NetworkError::new(&CallError::Protocol)));
        };
        let request = Request::Snapshot { vote, meta: snapshot.meta, body };
        let call = self.peers.call(self.node(), &self.address, &request, SNAPSHOT_TIME);
        let answer = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            answer = call => answer,
        };
        match answer {
            Ok(Response::Snapshot(Ok(answer))) => Ok(answer),
            Ok(Response::Snapshot(Err(error))) => {
                Err(StreamingError::RemoteError(RemoteError::new(self.target, error)))
            }
            Ok(_) => Err(StreamingError::Network(NetworkError::new(&CallError::Protocol))),
            Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
