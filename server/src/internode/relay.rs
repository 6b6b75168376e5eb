//! Between a link and whoever speaks over one end of a socket pair: a reactor's connection, or a thread that
//! shakes hands. TLS is done here, on the channel's own threads.
//!
//! Neither direction waits for the other. When one has come to its end, what it brought has been passed on, and
//! the whole relay ends: neither side goes on by halves.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use carnelian_tls::internode::Link;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// What is passed on at once: some of the largest records.
const BUFFER_BYTES: usize = 64 << 10;

/// For how long the other end is told that nothing more comes.
const FAREWELL: Duration = Duration::from_secs(1);

/// Starts to pass on. The end that is for the other side, which blocks. To be called on the runtime.
pub fn start(link: Link) -> io::Result<StdUnixStream> {
    let (theirs, ours) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    tokio::spawn(run(link, ours));
    Ok(theirs)
}

async fn run(link: impl AsyncRead + AsyncWrite, ours: UnixStream) {
    let (mut from_link, mut to_link) = tokio::io::split(link);
    let (mut from_ours, mut to_ours) = ours.into_split();
    {
        let incoming = pump(&mut from_link, &mut to_ours);
        let outgoing = pump(&mut from_ours, &mut to_link);
        // An error ends it as an end does: the reason is known where the link was cut.
        tokio::select! {
            _ = incoming => {}
            _ = outgoing => {}
        }
    }
    drop((from_ours, to_ours));
    let _ = timeout(FAREWELL, to_link.shutdown()).await;
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_directions_pass_and_the_end_comes_last() {
        const LARGE: usize = 4 << 20;
        let (near, far) = tokio::io::duplex(1 << 12);
        let (reactor, ours) = UnixStream::pair().unwrap();
        let relay = tokio::spawn(run(far, ours));
        let (mut near_read, mut near_write) = tokio::io::split(near);
        let (mut read, mut write) = reactor.into_split();
        // Neither side reads before it has written all: each direction has to go on by itself.
        let one = tokio::spawn(async move {
            let mut bytes = vec![0; LARGE];
            read.read_exact(&mut bytes).await.unwrap();
            assert!(bytes.iter().all(|byte| *byte == 1));
            let mut rest = Vec::new();
            read.read_to_end(&mut rest).await.unwrap();
            rest
        });
        let other = tokio::spawn(async move {
            let mut bytes = vec![0; LARGE];
            near_read.read_exact(&mut bytes).await.unwrap();
            assert!(bytes.iter().all(|byte| *byte == 2));
        });
        tokio::join!(async { near_write.write_all(&vec![1; LARGE]).await.unwrap() }, async {
            write.write_all(&vec![2; LARGE]).await.unwrap()
        });
        other.await.unwrap();
        near_write.write_all(b"last").await.unwrap();
        near_write.shutdown().await.unwrap();
        assert_eq!(one.await.unwrap(), b"last");
        relay.await.unwrap();
    }
}
