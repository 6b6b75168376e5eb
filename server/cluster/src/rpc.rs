//! Requests between nodes: one frame there, one frame back, one after another on a stream.
//!
//! A frame is its length, 4 bytes with the highest first, and as many bytes of JSON. The streams are links of
//! the control plane: both ends are known by their certificates.

use std::io;

use openraft::error::{Fatal, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::lease::{Beat, Granted};
use crate::raft::{Proposal, Reply, SnapshotMeta, Types, Vote};

/// No frame is larger; a snapshot of a cluster with very many users is far below it.
const FRAME_MAX: u32 = 64 << 20;

/// What is read at once, so that a length alone reserves nothing.
const CHUNK: usize = 64 << 10;

/// Any stream between two nodes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot {
        vote: Vote,
        meta: SnapshotMeta,
        body: String,
    },
    /// For the leader to put into the log.
    Change(Proposal),
    /// A node is alive, and how its shards are.
    Beat(Beat),
    /// Something that the control plane passes on: a ticket for the data plane, a request to sign.
    Other {
        kind: String,
        body: Vec<u8>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    Append(Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    Vote(Result<VoteResponse<u64>, RaftError<u64>>),
    Snapshot(Result<SnapshotResponse<u64>, Fatal<u64>>),
    /// With the index of its entry.
    Change(Reply, u64),
    Beat(Granted),
    Other(Result<Vec<u8>, String>),
    /// This node does not lead.
    NotLeader,
    /// The node that asked is no member, or speaks for another.
    Unwelcome,
    /// The node that asked was a member, and never will be again.
    Removed,
    /// This node cannot now, or at all.
    Failed(String),
}

pub async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).ok().filter(|length| *length <= FRAME_MAX);
    let length = length.ok_or_else(|| io::Error::other("too large for a frame"))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// None at the end of the stream.
pub async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length);
    if length > FRAME_MAX {
        return Err(io::Error::other("a frame that is too large"));
    }
    let (length, mut frame) = (length as usize, Vec::new());
    while frame.len() < length {
        let start = frame.len();
        frame.resize(length.min(start + CHUNK), 0);
        stream.read_exact(&mut frame[start..]).await?;
    }
    Ok(Some(serde_json::from_slice(&frame)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_comes_back_as_it_was() {
        let (mut one, mut other) = tokio::io::duplex(16);
        let long = "x".repeat(3 * CHUNK);
        let body = long.clone().into_bytes();
        tokio::spawn(async move {
            write(&mut one, &Request::Other { kind: "long".into(), body }).await
        });
        let read: Option<Request> = read(&mut other).await.expect("it is whole");
        assert!(matches!(read, Some(Request::Other { body, .. }) if body == long.as_bytes()));
    }

    #[tokio::test]
    async fn frames_that_are_too_large_or_cut_short_or_no_json_are_errors() {
        for bytes in [&[0xff, 0xff, 0xff, 0xff][..], &[0, 0, 0, 9, b'{'], &[0, 0, 0, 1, b'{'], &[0]]
        {
            let mut stream = bytes;
            assert!(read::<Request>(&mut stream).await.is_err(), "{bytes:?}");
        }
        assert!(read::<Request>(&mut &[][..]).await.expect("it is the end").is_none());
    }
}
