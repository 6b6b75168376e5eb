//! Messages on a link of the control plane: four bytes of length, the largest first, and so many bytes.
//!
//! A link begins with one that names what is spoken on it. Whoever speaks that implements
//! [`ControlPlane`]; what accepts links hands them on by that name.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::links::Link;

/// What a link has until its owner says otherwise: enough to say what is spoken on it.
pub const FRAME_BYTES_FIRST: usize = 1024;

/// Something that is spoken on links of the control plane.
pub trait ControlPlane: Send + Sync + 'static {
    /// Serves one link, which the peer has opened, until that ends. The message that named this is read
    /// already, and answered; the next one is the peer's.
    fn serve(self: Arc<Self>, link: Frames) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A link as a sequence of messages.
#[derive(Debug)]
pub struct Frames<S = Link> {
    stream: S,
    bytes_max: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, bytes_max: FRAME_BYTES_FIRST }
    }

    /// No message that comes may be longer than this.
    pub fn allow(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// For who goes on without messages.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// The link, for who it is with and whether it is to be remade.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    pub async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u32::try_from(message.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a message of 4 GiB"))?;
        // In one piece, as each write is a record.
        let mut frame = Vec::with_capacity(4 + message.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(message);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// The next message; none if the peer has ended the link behind the last. Memory grows by what
    /// comes, whatever length is claimed. Not to be called again after it was given up half-way.
    pub async fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        if self.stream.read(&mut length[..1]).await? == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut length[1..]).await?;
        let length = u32::from_be_bytes(length) as usize;
        if self.bytes_max < length {
            let reason = format!("a message of {length} bytes, more than {}", self.bytes_max);
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let mut message = Vec::new();
        let count = (&mut self.stream).take(length as u64).read_to_end(&mut message).await?;
        match count == length {
            true => Ok(Some(message)),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_as_they_were_sent_and_within_bounds() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (mut near, mut far) = (Frames::new(near), Frames::new(far));
        for message in [&b""[..], b"one", &[7; FRAME_BYTES_FIRST]] {
            near.send(message).await.unwrap();
            assert_eq!(far.receive().await.unwrap().as_deref(), Some(message));
        }
        near.send(&[0; FRAME_BYTES_FIRST + 1]).await.unwrap();
        let error = far.receive().await.unwrap_err();
        assert!(error.to_string().starts_with("a message of 1025 bytes"), "{error}");

        let (near, far) = tokio::io::duplex(1 << 20);
        let (mut near, mut far) = (Frames::new(near), Frames::new(far));
        far.allow(1 << 16);
        near.send(&[1; 1 << 16]).await.unwrap();
        assert_eq!(far.receive().await.unwrap().map(|message| message.len()), Some(1 << 16));
        near.stream.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
        drop(near);
        assert_eq!(far.receive().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (near, far) = tokio::io::duplex(64);
        drop(near);
        assert_eq!(Frames::new(far).receive().await.unwrap(), None);
    }
}
