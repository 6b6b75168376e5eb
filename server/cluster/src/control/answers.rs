//! What this node answers to others.

use std::future::Future;
use std::io;
use std::pin::pin;

use openraft::raft::VoteRequest;

use super::{Asked, Control, STORE_FAILED};
use crate::raft::{Snapshot, Vote, id_of};
use crate::rpc::{self, Request, Response, Stream};
use crate::state::NodeUid;

impl Control {
    /// Answers a node's requests on a stream until that ends. The stream is a link of the control plane, so
    /// `peer` is what the other end's certificate says. Once `is_outdated` is true it ends between two requests:
    /// who has more to ask makes another.
    pub async fn serve(
        &self,
        mut stream: impl Stream,
        peer: NodeUid,
        is_outdated: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut closed = pin!(self.0.closed.wait_for(|closed| closed));
        let mut is_outdated = pin!(is_outdated);
        loop {
            let request = tokio::select! {
                biased;
                () = &mut closed => return Ok(()),
                () = &mut is_outdated => return Ok(()),
                request = rpc::read(&mut stream) => request?,
            };
            let Some(request) = request else { return Ok(()) };
            let response = self.respond(peer, request).await;
            rpc::write(&mut stream, &response).await?;
            if matches!(response, Response::Unwelcome | Response::Removed) {
                return Ok(());
            }
        }
    }

    async fn respond(&self, peer: NodeUid, request: Request) -> Response {
        // A node that is behind may not know a new member yet, so Raft's own messages are taken from whoever the
        // cluster's authority has certified, unless it was removed.
        if self.state().removed_nodes.contains(&peer) {
            return Response::Removed;
        }
        let Some(member) = self.member() else {
            return Response::Failed("this node is in no cluster".to_owned());
        };
        let by_peer = |vote: &Vote| vote.leader_id.node_id == id_of(peer);
        match request {
            Request::Append(rpc) if by_peer(&rpc.vote) => {
                answered(member.answered(member.raft.append_entries(rpc)).await, Response::Append)
            }
            Request::Vote(VoteRequest { vote, last_log_id }) if by_peer(&vote) => {
                let request = VoteRequest { vote, last_log_id };
                answered(member.answered(member.raft.vote(request)).await, Response::Vote)
            }
            Request::Snapshot { vote, meta, body } if by_peer(&vote) => {
                let snapshot = Snapshot { meta, snapshot: Box::new(body.into_bytes()) };
                let installed = member.raft.install_full_snapshot(vote, snapshot);
                answered(member.answered(installed).await, Response::Snapshot)
            }
            Request::Append(_) | Request::Vote(_) | Request::Snapshot { .. } => Response::Unwelcome,
            Request::Change(proposal) => {
                if self.leading().is_none() {
                    return Response::NotLeader;
                }
                if !self.state().is_member(peer) {
                    return Response::Unwelcome;
                }
                match self.lead(&member, proposal).await {
                    Asked::Reply(reply, index) => Response::Change(reply, index),
                    Asked::Elsewhere => Response::NotLeader,
                    Asked::Failed(error) => Response::Failed(error),
                }
            }
            Request::Beat(beat) if beat.node == peer => match self.hear(&beat).await {
                Some(granted) => Response::Beat(granted),
                None => Response::NotLeader,
            },
            Request::Beat(_) => Response::Unwelcome,
            Request::Other { kind, body } => {
                if !self.state().is_member(peer) {
                    return Response::Unwelcome;
                }
                Response::Other(self.handle(peer, &kind, body).await)
            }
        }
    }

    pub(super) async fn handle(
        &self,
        peer: NodeUid,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, String> {
        let handler = self.0.handlers.read().get(kind).cloned();
        match handler {
            Some(handler) => handler(peer, body).await,
            None => Err(format!("nobody answers {kind} here")),
        }
    }
}

fn answered<T>(answer: Option<T>, response: impl FnOnce(T) -> Response) -> Response {
    answer.map_or_else(|| Response::Failed(STORE_FAILED.to_owned()), response)
}
