//! Where outgoing connections start from: `bind-source-addr`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Addresses of this machine, one of which a connection is to start from if it can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source(Vec<IpAddr>);

impl Source {
    /// The addresses among some words, if there are any; and the first word that is none.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Option<&str>) {
        let addresses = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let wrong = text.split_whitespace().find(|word| word.parse::<IpAddr>().is_err());
        (Self(addresses), wrong)
    }

    /// The one from which an address can be reached at all.
    fn of(&self, address: SocketAddr) -> Option<IpAddr> {
        self.0.iter().copied().find(|own| own.is_ipv4() == address.is_ipv4())
    }

    /// Connects, from anywhere if it cannot be from here: as Redis does it.
    pub fn connect(&self, address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        let Some(socket) = self.bound(address) else {
            return TcpStream::connect_timeout(&address, limit);
        };
        socket.connect_timeout(&address.into(), limit)?;
        Ok(socket.into())
    }

    /// The same on a runtime.
    pub async fn connect_async(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let Some(socket) = self.bound(address) else {
            return tokio::net::TcpStream::connect(address).await;
        };
        socket.set_nonblocking(true)?;
        tokio::net::TcpSocket::from_std_stream(socket.into()).connect(address).await
    }

    fn bound(&self, address: SocketAddr) -> Option<Socket> {
        let own = self.of(address)?;
        let bind = || {
            let domain = Domain::for_address(address);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::new(own, 0).into())?;
            io::Result::Ok(socket)
        };
        bind().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_found_among_words() {
        let (source, wrong) = Source::parse("127.0.0.2 ::1");
        assert_eq!((source.0.len(), wrong), (2, None));
        assert_eq!(Source::parse(""), (Source::default(), None));
        assert_eq!(Source::parse("eth0"), (Source::default(), Some("eth0")));
    }

    #[test]
    fn a_connection_starts_from_there_if_it_can() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it has one");
        for (own, expected) in [
            ("127.0.0.7", "127.0.0.7"),
            ("::1 127.0.0.8", "127.0.0.8"),
            ("", "127.0.0.1"),
            ("::1", "127.0.0.1"),
            // Nobody has this one.
            ("192.0.2.1", "127.0.0.1"),
        ] {
            let (source, _) = Source::parse(own);
            let stream = source.connect(address, Duration::from_secs(10)).expect("it listens");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let other = runtime.block_on(source.connect_async(address)).expect("it listens");
            for own in [stream.local_addr(), other.local_addr()] {
                assert_eq!(own.expect("it has one").ip().to_string(), expected);
            }
        }
    }
}
