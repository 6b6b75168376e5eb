//! Where the cluster is and who asks: options before the command, or the environment.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::http::{Client, Target, Trust};

/// Where a node's local socket is looked for if nobody says where the cluster is.
const SOCKETS: [&str; 3] = ["admin.sock", "/var/lib/carnelian/admin.sock", "/data/admin.sock"];

/// Certificates that the system trusts.
const SYSTEM_ROOTS: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

const DEFAULT_PORT: u16 = 9443;

#[derive(Clone, Debug, Default)]
pub struct Connection {
    host: Option<String>,
    port: Option<u16>,
    socket: Option<PathBuf>,
    user: Option<String>,
    password: Option<String>,
    cacert: Option<PathBuf>,
    insecure: bool,
    /// `-y`: every question is answered with yes.
    pub yes: bool,
}

impl Connection {
    /// Takes the options off the front. What is left is the command.
    pub fn parse(arguments: Vec<String>) -> anyhow::Result<(Self, Vec<String>)> {
        let mut connection = Self::of_environment(|name| env::var(name).ok())?;
        let mut words = arguments.into_iter().peekable();
        while let Some(word) = words.next_if(|word| word.starts_with('-')) {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "-y" => connection.yes = true,
                "-k" | "--insecure" => connection.insecure = true,
                // Who names a host does not mean the socket of the environment.
                "--host" => (connection.host, connection.socket) = (Some(value()?), None),
                "--port" => {
                    let port = value()?.parse().context("--port")?;
                    (connection.port, connection.socket) = (Some(port), None);
                }
                "--socket" => connection.socket = Some(value()?.into()),
                "--user" => connection.user = Some(value()?),
                "--password" => connection.password = Some(value()?),
                "--cacert" => connection.cacert = Some(value()?.into()),
                "-h" | "--help" => return Ok((connection, vec!["help".into()])),
                "--version" => return Ok((connection, vec!["version".into()])),
                _ => bail!("unknown option {word}"),
            }
        }
        Ok((connection, words.collect()))
    }

    fn of_environment(get: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let mut connection = Self {
            user: get("CARNELIAN_USER"),
            password: get("CARNELIAN_PASSWORD"),
            cacert: get("CARNELIAN_CACERT").map(PathBuf::from),
            socket: get("CARNELIAN_SOCKET").map(PathBuf::from),
            ..Self::default()
        };
        if let Some(url) = get("CARNELIAN_URL") {
            let (host, port) = parse_url(&url).context("CARNELIAN_URL")?;
            connection.host = Some(host);
            connection.port = port;
        }
        Ok(connection)
    }

    pub fn client(&self) -> anyhow::Result<Client> {
        if let Some(path) = self.local_socket() {
            return Ok(Client::new(Target::Local(path), None));
        }
        let host = self.host.clone().unwrap_or_else(|| "localhost".into());
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let (Some(user), Some(password)) = (&self.user, &self.password) else {
            bail!(
                "no node's socket is here, and to ask {host}:{port} takes --user and --password \
                 (or CARNELIAN_USER and CARNELIAN_PASSWORD)"
            );
        };
        let target = Target::Remote { host, port, trust: self.trust()? };
        Ok(Client::new(target, Some((user.clone(), password.clone()))))
    }

    /// A node that is not in a cluster yet asks nobody for credentials.
    pub fn client_without_credentials(&self) -> anyhow::Result<Client> {
        if let Some(path) = self.local_socket() {
            return Ok(Client::new(Target::Local(path), None));
        }
        let host = self.host.clone().unwrap_or_else(|| "localhost".into());
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let credentials = self.user.clone().zip(self.password.clone());
        Ok(Client::new(Target::Remote { host, port, trust: self.trust()? }, credentials))
    }

    fn local_socket(&self) -> Option<PathBuf> {
        if self.socket.is_some() {
            return self.socket.clone();
        }
        if self.host.is_some() || self.port.is_some() {
            return None;
        }
        SOCKETS.into_iter().map(PathBuf::from).find(|path| path.exists())
    }

    fn trust(&self) -> anyhow::Result<Trust> {
        if self.insecure {
            return Ok(Trust::Anybody);
        }
        let file = match &self.cacert {
            Some(file) => Some(file.clone()),
            None => SYSTEM_ROOTS.into_iter().map(PathBuf::from).find(|path| path.exists()),
        };
        let Some(file) = file else {
            bail!("--cacert FILE says whom to trust; -k trusts anybody");
        };
        let pem = fs::read(&file).with_context(|| file.display().to_string())?;
        Ok(Trust::Authorities(pem))
    }
}

/// `https://host:port`, with or without a scheme, a port, and a path.
fn parse_url(url: &str) -> anyhow::Result<(String, Option<u16>)> {
    let rest = match url.split_once("://") {
        Some(("https", rest)) => rest,
        Some((scheme, _)) => bail!("{scheme} is not spoken here, only https"),
        None => url,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').context("the address is not closed by ]")?;
        let port = port.strip_prefix(':').map(str::parse).transpose().context("the port")?;
        return Ok((host.to_owned(), port));
    }
    match authority.split_once(':') {
        Some((host, port)) => Ok((host.to_owned(), Some(port.parse().context("the port")?))),
        None => Ok((authority.to_owned(), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> anyhow::Result<(Connection, Vec<String>)> {
        Connection::parse(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn options_come_before_the_command() {
        let (connection, command) =
            parsed("-y --host h --port 7 --user a --password p -k tune db 1 -x").unwrap();
        assert!(connection.yes && connection.insecure);
        assert_eq!((connection.host.as_deref(), connection.port), (Some("h"), Some(7)));
        assert_eq!(command, ["tune", "db", "1", "-x"]);
        for wrong in ["--port x", "--host", "--nothing status"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_are_read() {
        let read = |url| parse_url(url).unwrap();
        assert_eq!(read("https://a.b:9443/"), ("a.b".into(), Some(9443)));
        assert_eq!(read("a.b"), ("a.b".into(), None));
        assert_eq!(read("https://[::1]:7"), ("::1".into(), Some(7)));
        assert!(parse_url("http://a").is_err());
        assert!(parse_url("https://a:b").is_err());
    }
}
