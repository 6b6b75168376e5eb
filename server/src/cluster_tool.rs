//! `carnelian-server cluster ...`: the certificates by which the nodes of a cluster know one another,
//! made by hand until the control plane makes them.
//!
//! On the first node `cluster init` makes the authority and the node's own certificates. A further node
//! makes its keys and asks with `cluster request`, the first grants with `cluster sign`, and the other takes
//! what it was granted with `cluster accept`. What goes between them holds no private key.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use carnelian_tls::internode::{
    Authority, ClusterId, Identity, Lifetime, NodeKey, NodeUid, Plane, Request, SealKey,
    SigningAuthority, Store, Trust, certificates_in,
};

use crate::boot::DATA_FOLDER;

const USAGE: &str = "\
Usage: carnelian-server cluster init [options]
       carnelian-server cluster request --cluster ID --node UID [options]
       carnelian-server cluster sign REQUEST [options]
       carnelian-server cluster accept CERTIFICATES [options]

  init      make the cluster's authority and this node's certificates
  request   make this node's keys and a request for certificates, node-UID.csr
  sign      grant a request; writes the certificates beside it, as node-UID.crt
  accept    take the certificates that were granted

Options:
  --dir DIR        the data folder (carnelian-data)
  --node UID       this node's number (init: 1); sign: grant to this node only
  --cluster ID     the cluster's id, as init and sign print it
  --seal-key FILE  the key that seals the authority (in the data folder)
  --days N         how long certificates live (45)
";

/// The words after `cluster`, if this is for us. A configuration file may have that name too.
pub fn asked_for(arguments: &[OsString]) -> Option<&[OsString]> {
    let [first, words @ ..] = arguments else { return None };
    let is_known = |word: &OsString| {
        ["init", "request", "sign", "accept", "help", "--help"].iter().any(|known| word == known)
    };
    (first == "cluster" && words.first().is_some_and(is_known)).then_some(words)
}

pub fn main(words: &[OsString]) -> ExitCode {
    match run(words) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was done, for people.
pub(crate) fn run(words: &[OsString]) -> Result<String> {
    let now = SystemTime::now();
    let task = Task::of(words)?;
    match task.verb.as_str() {
        "init" => task.init(now),
        "request" => task.request(),
        "sign" => task.sign(now),
        "accept" => task.accept(now),
        _ => Ok(USAGE.into()),
    }
}

/// What was asked for.
struct Task {
    verb: String,
    file: Option<PathBuf>,
    folder: PathBuf,
    node: Option<NodeUid>,
    cluster: Option<ClusterId>,
    seal_key: Option<PathBuf>,
    life: Lifetime,
}

impl Task {
    fn of(words: &[OsString]) -> Result<Self> {
        let mut words = words.iter();
        let verb = words.next().map(|word| word.to_string_lossy().into_owned());
        let mut task = Self {
            verb: verb.unwrap_or_default(),
            file: None,
            folder: DATA_FOLDER.into(),
            node: None,
            cluster: None,
            seal_key: None,
            life: Lifetime::default(),
        };
        while let Some(word) = words.next() {
            let option = word.to_str().filter(|word| word.starts_with("--"));
            let Some(option) = option else {
                ensure!(task.file.is_none(), "One file at a time\n\n{USAGE}");
                task.file = Some(word.into());
                continue;
            };
            let value = words.next().with_context(|| format!("{option} wants a value"))?;
            let text = || value.to_str().with_context(|| format!("{option}: not text"));
            let bad = || format!("{option} {}", value.to_string_lossy());
            match option {
                "--dir" => task.folder = value.into(),
                "--seal-key" => task.seal_key = Some(value.into()),
                "--node" => task.node = Some(text()?.parse().with_context(bad)?),
                "--cluster" => task.cluster = Some(text()?.parse().with_context(bad)?),
                "--days" => task.life = Lifetime::days(text()?.parse().with_context(bad)?)?,
                _ => bail!("Unknown option {option}\n\n{USAGE}"),
            }
        }
        let wants_file = matches!(task.verb.as_str(), "sign" | "accept");
        ensure!(task.file.is_some() == wants_file, "{USAGE}");
        Ok(task)
    }

    fn init(&self, now: SystemTime) -> Result<String> {
        let store = Store::open(&self.folder)?;
        ensure!(
            !store.has_authority() && !store.has_trust(),
            "{}: this node belongs to a cluster already",
            store.folder().display()
        );
        let cluster = ClusterId::random().context("No random numbers")?;
        let node = self.node.or(NodeUid::new(1)).context("1 is a node's number")?;
        let seal_key = match &self.seal_key {
            Some(path) if path.exists() => SealKey::open(path)?,
            Some(path) => SealKey::create(path)?,
            // Left over from an attempt that did not get as far as an authority.
            None if store.seal_key_file().exists() => SealKey::open(&store.seal_key_file())?,
            None => SealKey::create(&store.seal_key_file())?,
        };
        let authority = SigningAuthority::create(cluster, now)?;
        for plane in Plane::ALL {
            let key = NodeKey::generate()?;
            let identity = Identity { cluster, node, plane };
            let request = Request::from_pem(key.request(identity)?.as_bytes())?;
            let issued = authority.sign(&request, identity, self.life, now)?;
            store.save_credential(&key.certified(issued.certificate)?)?;
        }
        store.save_authority(&authority, &seal_key)?;
        // Last, as this is what makes the node one of a cluster.
        store.save_trust(&Trust::new(vec![authority.public().clone()])?)?;
        Ok(format!(
            "cluster {cluster}\nauthority {}\nnode {node}\nkept in {}\n",
            authority.public().fingerprint(),
            store.folder().display()
        ))
    }

    fn request(&self) -> Result<String> {
        let (Some(cluster), Some(node)) = (self.cluster, self.node) else {
            bail!("--cluster and --node have to be given\n\n{USAGE}");
        };
        let store = Store::open(&self.folder)?;
        let mut requests = String::new();
        for plane in Plane::ALL {
            let key = NodeKey::generate()?;
            store.save_pending_key(plane, &key)?;
            requests.push_str(&key.request(Identity { cluster, node, plane })?);
        }
        let path = store.folder().join(format!("node-{node}.csr"));
        write(&path, &requests)?;
        Ok(format!("request {}\n", path.display()))
    }

    fn sign(&self, now: SystemTime) -> Result<String> {
        let path = self.file.as_deref().context("no request")?;
        let contents = read(path)?;
        let requests =
            Request::all_from_pem(&contents).with_context(|| path.display().to_string())?;
        let store = Store::open(&self.folder)?;
        let seal_key = self.seal_key.clone().unwrap_or_else(|| store.seal_key_file());
        let authority = store.authority(&SealKey::open(&seal_key)?)?;

        let mut report = format!("cluster {}\n", authority.public().cluster());
        let mut certificates = String::new();
        for request in &requests {
            let identity = request.identity();
            if let Some(node) = self.node {
                ensure!(identity.node == node, "the request is for {identity}, not node {node}");
            }
            let issued = authority.sign(request, identity, self.life, now)?;
            certificates.push_str(&issued.certificate_pem);
            report.push_str(&format!("signed {identity} serial {}\n", issued.serial));
        }
        for trusted in store.trust()?.authorities() {
            certificates.push_str(&trusted.to_pem());
        }
        let path = path.with_extension("crt");
        write(&path, &certificates)?;
        report.push_str(&format!("certificates {}\n", path.display()));
        Ok(report)
    }

    fn accept(&self, now: SystemTime) -> Result<String> {
        let path = self.file.as_deref().context("no certificates")?;
        let store = Store::open(&self.folder)?;
        let (mut authorities, mut leaves) = (Vec::new(), Vec::new());
        for certificate in certificates_in(path)? {
            match Authority::new(certificate.clone()) {
                Ok(authority) => authorities.push(authority),
                Err(_) => leaves.push(certificate),
            }
        }
        // A node that knows whom to trust is not told otherwise by a file.
        let trust = match store.has_trust() {
            true => store.trust()?,
            false => Trust::new(authorities)?,
        };
        let mut credentials = Vec::new();
        for leaf in leaves {
            let keys = Plane::ALL.map(|plane| store.pending_key(plane));
            let mut granted = None;
            for key in keys {
                let credential = key?.and_then(|key| key.certified(leaf.clone()).ok());
                granted = granted.or(credential);
            }
            let credential = granted.context("A certificate is for no key that was made here")?;
            trust.vouches_for(&credential, now)?;
            credentials.push(credential);
        }
        ensure!(!credentials.is_empty(), "{}: no node's certificate in it", path.display());
        store.save_trust(&trust)?;
        let mut report = format!("cluster {}\n", trust.cluster());
        for credential in &credentials {
            store.save_credential(credential)?;
            let (identity, serial) = (credential.identity(), credential.serial());
            report.push_str(&format!("accepted {identity} serial {serial}\n"));
        }
        Ok(report)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("Can't read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("Can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn done(line: &str) -> String {
        run(&words(line)).unwrap_or_else(|error| panic!("{line}: {error:#}"))
    }

    fn refused(line: &str) -> String {
        format!("{:#}", run(&words(line)).expect_err(line))
    }

    #[test]
    fn only_its_own_words_are_taken() {
        assert!(asked_for(&words("cluster init --node 3")).is_some());
        for line in ["cluster", "cluster --port 7000", "init", "redis.conf", "cluster.conf init"] {
            assert!(asked_for(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn a_second_node_is_let_in_by_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (one, two) = (path("one"), path("two"));
        let made = done(&format!("init --dir {one} --seal-key {} --days 10", path("seal")));
        let cluster = made.lines().next().unwrap().strip_prefix("cluster ").unwrap().to_owned();
        assert!(refused(&format!("init --dir {one}")).contains("belongs to a cluster already"));

        let asked = done(&format!("request --dir {two} --cluster {cluster} --node 2"));
        let request = asked.trim_end().strip_prefix("request ").unwrap().to_owned();
        let wrong = format!("sign {request} --dir {one} --seal-key {} --node 3", path("seal"));
        assert!(refused(&wrong).contains("not node 3"));
        assert!(refused(&format!("sign {request} --dir {one}")).contains("seal.key: cannot read"));
        let signed = done(&format!("sign {request} --dir {one} --seal-key {}", path("seal")));
        assert!(signed.contains(&format!("signed carnelian://{cluster}/node/2/data serial ")));
        let granted = request.replace(".csr", ".crt");
        assert!(!std::fs::read_to_string(&granted).unwrap().contains("PRIVATE"));
        let taken = done(&format!("accept {granted} --dir {two}"));
        assert_eq!(taken.matches("accepted").count(), 2);
        // The keys are in use now, so there is nothing more to accept.
        assert!(refused(&format!("accept {granted} --dir {two}")).contains("no key"));
        assert!(refused(&format!("accept {granted} --dir {one}")).contains("no key"));

        for data in [&one, &two] {
            let store = Store::open(Path::new(data)).unwrap();
            let trust = store.trust().unwrap();
            assert_eq!(trust.cluster().to_string(), cluster);
            for plane in Plane::ALL {
                let credential = store.credential(plane).unwrap();
                trust.vouches_for(&credential, SystemTime::now()).unwrap();
                assert_eq!(credential.identity().plane, plane);
            }
            for file in std::fs::read_dir(store.folder()).unwrap() {
                let mode = file.unwrap().metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
        }
        assert!(!Store::open(Path::new(&two)).unwrap().has_authority());
    }

    #[test]
    fn another_cluster_grants_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (one, two) = (path("one"), path("two"));
        done(&format!("init --dir {one}"));
        let other = "0123456789abcdef0123456789abcdef";
        done(&format!("request --dir {two} --cluster {other} --node 2"));
        let request = format!("{two}/internode/node-2.csr");
        assert!(refused(&format!("sign {request} --dir {one}")).contains("for the cluster 0123"));
        assert!(
            refused(&format!("sign {one}/internode/trust.pem --dir {one}")).contains("no request")
        );
        assert!(refused(&format!("sign {one}/none --dir {one}")).contains("Can't read"));
    }

    #[test]
    fn mistakes_are_told() {
        for (line, expected) in [
            ("sign", "Usage:"),
            ("init file", "Usage:"),
            ("sign a b", "One file at a time"),
            ("init --node", "--node wants a value"),
            ("init --node 0", "--node 0"),
            ("init --days 1", "from 2 to 365"),
            ("init --days x", "--days x"),
            ("init --force yes", "Unknown option --force"),
            ("request --node 2", "have to be given"),
            ("request --cluster x --node 2", "--cluster x"),
        ] {
            let error = refused(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
        assert!(done("help").starts_with("Usage:"));
    }
}
