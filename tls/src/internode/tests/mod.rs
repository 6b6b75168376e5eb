//! The channel over real sockets on 127.0.0.1: what works, what is swapped while it works, and, in
//! the modules below, everything that must not work.

mod certificates;
mod forge;
mod handshakes;
mod openssl;
mod provided;
mod rotation;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::CipherSuite;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use forge::{Client, World, world};

/// Far more than anything here takes; a test that waits for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that accepts, and what came of each connection.
pub(super) struct Listening {
    pub(super) node: Arc<Node>,
    pub(super) address: SocketAddr,
    results: mpsc::UnboundedReceiver<Result<Link, Refusal>>,
}

impl Listening {
    pub(super) async fn start(node: Arc<Node>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, results) = mpsc::unbounded_channel();
        let acceptor = Acceptor::new(Arc::clone(&node));
        tokio::spawn(async move {
            let handle = move |_, result| drop(sender.send(result));
            acceptor.serve(listener, handle).await;
        });
        Self { node, address, results }
    }

    /// What came of the next connection.
    pub(super) async fn result(&mut self) -> Result<Link, Refusal> {
        tokio::time::timeout(PATIENCE, self.results.recv()).await.expect("in time").unwrap()
    }

    /// A link from `node` to this one: its two ends.
    pub(super) async fn link(&mut self, from: &Arc<Node>, plane: Plane) -> (Link, Link) {
        let connector = Connector::new(Arc::clone(from));
        let outgoing = connector.connect(self.address, self.node.uid(), plane).await.unwrap();
        (outgoing, self.result().await.unwrap())
    }
}

async fn exchange(one: &mut Link, other: &mut Link) {
    for (from, to) in [(&mut *one, &mut *other)] {
        from.write_all(b"ping").await.unwrap();
        from.flush().await.unwrap();
        let mut got = [0; 4];
        to.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        to.write_all(b"pong").await.unwrap();
        to.flush().await.unwrap();
        from.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"pong");
    }
}

fn settings(versions: Versions) -> Settings {
    Settings { versions, handshake_limit: PATIENCE, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_link_on_both_planes_and_in_both_versions() {
    let both = CipherSuite::TLS13_AES_256_GCM_SHA384;
    let old = CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384;
    for (server, client, version, suite) in [
        (Versions::Both, Versions::Both, "TLSv1.3", both),
        (Versions::Both, Versions::Tls13, "TLSv1.3", both),
        (Versions::Tls13, Versions::Both, "TLSv1.3", both),
        (Versions::Both, Versions::Tls12, "TLSv1.2", old),
        (Versions::Tls12, Versions::Both, "TLSv1.2", old),
    ] {
        let mut listening = Listening::start(world().node_with(1, settings(server))).await;
        let node = world().node_with(2, settings(client));
        for plane in Plane::ALL {
            let (mut outgoing, mut incoming) = listening.link(&node, plane).await;
            exchange(&mut outgoing, &mut incoming).await;
            assert_eq!(outgoing.peer().identity, world().identity(1, plane));
            assert_eq!(incoming.peer().identity, world().identity(2, plane));
            assert_eq!(incoming.peer().serial, *node.credential(plane).serial());
            for link in [&outgoing, &incoming] {
                assert_eq!((link.version(), link.suite()), (version, Some(suite)));
                assert_eq!(link.plane(), plane);
            }
            assert_eq!(listening.node.counters().established(Direction::Incoming, plane), 1);
            assert_eq!(node.counters().established(Direction::Outgoing, plane), 1);
            drop((outgoing, incoming));
            assert_eq!((listening.node.links().count(), node.links().count()), (0, 0));
        }
        assert_eq!(listening.node.counters().refused_in_all(Direction::Incoming), 0);
    }

    let mut only12 = Listening::start(world().node_with(1, settings(Versions::Tls12))).await;
    let connector = Connector::new(world().node_with(2, settings(Versions::Tls13)));
    let refusal = connector.connect(only12.address, world().uid(1), Plane::Data).await.unwrap_err();
    assert_eq!(refusal.to_string(), "the other end refused: none of our versions of TLS");
    assert_eq!(only12.result().await.unwrap_err(), Refusal::VersionNotInUse);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_the_four_suites_works_and_the_stronger_is_preferred() {
    let mut listening = Listening::start(world().node(1)).await;
    assert_eq!(suites().count(), 4);
    for suite in suites() {
        for plane in Plane::ALL {
            let client = Client {
                suites: vec![suite],
                versions: vec![suite.version()],
                ..Client::of_node(2, plane)
            };
            let welcomed = client.connect(listening.address).await;
            let link = listening.result().await.unwrap();
            assert_eq!(link.suite(), Some(suite.suite()));
            assert!(welcomed, "{:?}", suite.suite());
        }
    }
    let node = listening.node.clone();
    assert_eq!(node.counters().established(Direction::Incoming, Plane::Data), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_amounts_go_both_ways_at_once() {
    const BYTES: usize = 8 << 20;

    let mut listening = Listening::start(world().node(1)).await;
    let (outgoing, incoming) = listening.link(&world().node(2), Plane::Data).await;
    let ends = [outgoing, incoming].map(|link| {
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(link);
            let writing = tokio::spawn(async move {
                for place in 0..BYTES / 65_536 {
                    writer.write_all(&[place as u8; 65_536]).await.unwrap();
                }
                writer.flush().await.unwrap();
                writer
            });
            let mut got = vec![0; BYTES];
            reader.read_exact(&mut got).await.unwrap();
            let is_right = |(place, part): (usize, &[u8])| part.iter().all(|b| *b == place as u8);
            assert!(got.chunks(65_536).enumerate().all(is_right));
            drop((writing.await.unwrap(), reader));
        })
    });
    for end in ends {
        end.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_are_shown_at_once_and_live_links_stay() {
    let (one, two) = (world().node(1), world().node(2));
    let mut listening = Listening::start(one.clone()).await;
    let (mut old_out, mut old_in) = listening.link(&two, Plane::Data).await;
    let (old_one, old_two) = (old_out.peer().serial.clone(), old_in.peer().serial.clone());

    one.install(world().credential(1, Plane::Data)).unwrap();
    two.install(world().credential(2, Plane::Data)).unwrap();
    let (mut new_out, mut new_in) = listening.link(&two, Plane::Data).await;
    assert_ne!(new_out.peer().serial, old_one);
    assert_ne!(new_in.peer().serial, old_two);
    exchange(&mut old_out, &mut old_in).await;
    exchange(&mut new_out, &mut new_in).await;

    // The old one can be found, and its owner be told.
    let outdated = two.links().outdated(Plane::Data, two.credential(Plane::Data).serial());
    assert_eq!(outdated.iter().map(|info| info.id).collect::<Vec<_>>(), [old_out.id()]);
    assert!(two.links().outdated(Plane::Control, &old_in.peer().serial).is_empty());
    let mut signal = old_out.signal();
    assert_eq!(*signal.borrow_and_update(), Signal::Keep);
    assert!(two.links().remake(old_out.id()));
    signal.changed().await.unwrap();
    assert_eq!(*signal.borrow_and_update(), Signal::Remake);
    exchange(&mut old_out, &mut old_in).await;
    assert!(two.end_link(old_out.id()) && !two.end_link(old_out.id()));
    let error = old_out.read_u8().await.unwrap_err();
    assert_eq!(error.to_string(), "this node has ended it");
    let id = old_out.id();
    drop(old_out);
    assert!(!two.links().remake(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_would_refuse_is_not_installed() {
    let node = world().node(1);
    let before = node.credential(Plane::Data).serial().clone();
    let stranger = World::new();
    let long_ago = SystemTime::now() - Duration::from_secs(60 * 86_400);
    for (credential, expected) in [
        (world().credential(2, Plane::Data), "node/2/data, not for carnelian://"),
        (stranger.credential(1, Plane::Data), "not for carnelian://"),
        (world().credential_at(1, Plane::Data, long_ago), "expired"),
        (world().credential_of(&world().unnamed_authority(), 1), "no authority of this cluster"),
    ] {
        let error = node.install(credential).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(*node.credential(Plane::Data).serial(), before);
    let error = Node::new(
        world().credential(1, Plane::Data),
        world().credential(1, Plane::Data),
        world().trust(),
        Settings::default(),
    );
    assert!(error.unwrap_err().to_string().contains("/data, not for "));
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_ends_live_links_at_once_and_bars_new_ones() {
    for by_serial in [true, false] {
        let (one, two, three) = (world().node(1), world().node(2), world().node(3));
        let mut listening = Listening::start(one.clone()).await;
        let (mut doomed_out, doomed_in) = listening.link(&two, Plane::Data).await;
        let (mut other_out, mut other_in) = listening.link(&three, Plane::Data).await;

        // One end waits in a read, as a replica does.
        let signal = doomed_in.signal();
        let waiting = tokio::spawn(async move {
            let mut link = doomed_in;
            let error = link.read_u8().await.unwrap_err();
            (error, link.write_all(b"x").await.unwrap_err())
        });
        let ended = match by_serial {
            true => one.revoke_certificate(two.credential(Plane::Data).serial().clone()),
            false => one.revoke_node(two.uid()),
        };
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].signal, Signal::Dropped(DropReason::Revoked));
        // Not within a second but by now.
        assert_eq!(*signal.borrow(), Signal::Dropped(DropReason::Revoked));
        let (read, write) = waiting.await.unwrap();
        for error in [read, write] {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
            assert_eq!(error.to_string(), "the other end has been revoked");
        }
        assert!(doomed_out.read_u8().await.is_err());
        exchange(&mut other_out, &mut other_in).await;
        assert_eq!(one.counters().dropped(DropReason::Revoked), 1);

        let again = Connector::new(two.clone());
        let refusal = again.connect(listening.address, one.uid(), Plane::Data).await.unwrap_err();
        assert_eq!(refusal.to_string(), "the other end refused: our certificate has been revoked");
        assert_eq!(listening.result().await.unwrap_err().kind(), RefusalKind::Revoked);
        // A revoked serial is that of one plane; a node's is all it has.
        let control = again.connect(listening.address, one.uid(), Plane::Control).await;
        assert_eq!(control.is_ok(), by_serial);
        assert_eq!(listening.result().await.is_ok(), by_serial);
        // Who has revoked does not connect either.
        let mut revoked = Listening::start(two.clone()).await;
        let refusal = Connector::new(one).connect(revoked.address, two.uid(), Plane::Data).await;
        assert_eq!(refusal.unwrap_err().kind(), RefusalKind::Revoked);
        assert_eq!(revoked.result().await.unwrap_err().kind(), RefusalKind::ByPeer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_slips_in_between_revoking_and_looking() {
    let (one, two) = (world().node(1), world().node(2));
    let mut listening = Listening::start(one.clone()).await;
    let connecting = tokio::spawn({
        let (address, connector) = (listening.address, Connector::new(two.clone()));
        async move {
            let mut links = Vec::new();
            while let Ok(link) = connector.connect(address, world().uid(1), Plane::Data).await {
                links.push(link);
            }
            links
        }
    });
    let mut incoming = Vec::new();
    for _ in 0..3 {
        incoming.push(listening.result().await.unwrap());
    }
    one.revoke_node(two.uid());
    let outgoing = connecting.await.unwrap();
    assert!(3 <= outgoing.len());
    for mut link in outgoing {
        assert!(link.read_u8().await.is_err());
    }
    assert!(one.links().all().iter().all(|info| info.signal != Signal::Keep));
}

/// A clock that is set by hand, in seconds since 1970.
#[derive(Debug)]
struct Hands(AtomicI64);

impl TimeProvider for Hands {
    fn current_time(&self) -> Option<UnixTime> {
        let now_s = u64::try_from(self.0.load(Ordering::SeqCst)).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now_s)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_link_ends_with_the_certificate_of_its_other_end() {
    let two = world().node(2);
    let credential = two.credential(Plane::Data);
    let clock = Arc::new(Hands(AtomicI64::new(crate::issue::seconds(SystemTime::now()))));
    let own = Settings { clock: clock.clone(), ..settings(Versions::Both) };
    let one = world().node_with(1, own);
    let mut listening = Listening::start(one.clone()).await;
    let (mut outgoing, mut incoming) = listening.link(&two, Plane::Data).await;

    // Its last second counts.
    clock.0.store(credential.not_after(), Ordering::SeqCst);
    assert!(one.end_expired().is_empty());
    exchange(&mut outgoing, &mut incoming).await;

    clock.0.store(credential.not_after() + 1, Ordering::SeqCst);
    let ended = one.end_expired();
    assert_eq!(ended.iter().map(|info| info.id).collect::<Vec<_>>(), [incoming.id()]);
    let error = incoming.read_u8().await.unwrap_err();
    assert_eq!(error.to_string(), "the other end's certificate has expired");
    assert!(outgoing.read_u8().await.is_err());
    assert_eq!(one.counters().dropped(DropReason::Expired), 1);
    assert!(one.end_expired().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_replaced_without_a_gap() {
    let (one, two) = (world().node(1), world().node(2));
    let mut listening = Listening::start(one.clone()).await;
    let (mut first_out, mut first_in) = listening.link(&two, Plane::Data).await;
    let old = world().trust().authorities()[0].fingerprint();

    let next = SigningAuthority::create(world().cluster, SystemTime::now()).unwrap();
    for node in [&one, &two] {
        let both = [node.trust().authorities(), &[next.public().clone()]].concat();
        node.trust_only(both.clone(), 5).unwrap();
        assert_eq!(node.trust().revision(), 5);
        let three = [both, vec![next.public().clone()]].concat();
        assert!(node.trust_only(three, 6).is_err(), "not a third");
    }
    two.install(world().credential_of(&next, 2)).unwrap();
    let (mut mixed_out, mut mixed_in) = listening.link(&two, Plane::Data).await;
    exchange(&mut mixed_out, &mut mixed_in).await;

    // Not while this node still shows a certificate of the old one.
    let new = next.public().fingerprint();
    let only_new = || one.trust_only(vec![next.public().clone()], 7);
    assert!(only_new().unwrap_err().to_string().contains("no authority"));
    assert!(one.trust_only(Vec::new(), 7).is_err());
    for plane in Plane::ALL {
        one.install(world().credential_by(&next, 1, plane)).unwrap();
        two.install(world().credential_by(&next, 2, plane)).unwrap();
    }
    let (mut last_out, mut last_in) = listening.link(&two, Plane::Data).await;
    let ended = only_new().unwrap();
    assert_eq!(ended.iter().map(|info| info.id).collect::<Vec<_>>(), [first_in.id()]);
    assert_eq!(one.counters().dropped(DropReason::AuthorityWithdrawn), 1);
    assert!(first_in.read_u8().await.is_err() && first_out.read_u8().await.is_err());
    exchange(&mut mixed_out, &mut mixed_in).await;
    exchange(&mut last_out, &mut last_in).await;
    assert_ne!(old, new);
}

#[test]
fn what_is_kept_comes_back_and_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let key = SealKey::create(&store.seal_key_file()).unwrap();
    assert!(!store.has_authority() && !store.has_trust());
    store.save_authority(&world().authority, &key).unwrap();
    let authority = store.authority(&SealKey::open(&store.seal_key_file()).unwrap()).unwrap();
    assert_eq!(authority.public().certificate(), world().authority.public().certificate());

    let mut trust = world().trust();
    trust.revocations.nodes.insert(world().uid(9));
    trust.revocations.serials.insert("0abc".parse().unwrap(), None);
    trust.revocations.serials.insert("0abd".parse().unwrap(), Some(1_800_000_000));
    store.save_trust(&trust).unwrap();
    let read = store.trust().unwrap();
    assert_eq!(read.revocations, trust.revocations);
    assert_eq!(read.authorities()[0].certificate(), trust.authorities()[0].certificate());
    assert_eq!(read.revision(), 0);
    store.save_trust(&trust.as_of(81)).unwrap();
    assert_eq!((store.trust().unwrap().revision(), read.authorities().len()), (81, 1));

    let made = NodeKey::generate().unwrap();
    store.save_pending_key(Plane::Data, &made).unwrap();
    let pending = store.pending_key(Plane::Data).unwrap().unwrap();
    let identity = world().identity(1, Plane::Data);
    let request = Request::from_pem(pending.request(identity).unwrap().as_bytes()).unwrap();
    let now = SystemTime::now();
    let issued = authority.sign(&request, identity, Lifetime::default(), now).unwrap();
    let credential = made.certified(issued.certificate.clone()).unwrap();
    assert_eq!(credential.not_after() - credential.not_before(), 45 * 86_400);
    // Nodes whose clocks are almost an hour behind take it.
    assert_eq!(credential.not_before(), crate::issue::seconds(now) - 3_600);
    store.save_credential(&credential).unwrap();
    assert!(store.pending_key(Plane::Data).unwrap().is_none());
    let read = store.credential(Plane::Data).unwrap();
    assert_eq!((read.serial(), read.identity()), (&issued.serial, identity));
    assert_eq!(read.certificate(), &issued.certificate);

    for file in std::fs::read_dir(store.folder()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
    }
    let mode = std::fs::metadata(store.folder()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);

    // No key in the clear but the node's own, and none in what is printed.
    let sealed = std::fs::read(store.folder().join("authority.sealed")).unwrap();
    assert!(!String::from_utf8_lossy(&sealed).contains("KEY"));
    let printed = format!("{credential:?} {request:?} {issued:?} {:?}", world().node(1));
    assert!(!printed.contains("PRIVATE") && !printed.contains("key_pem"), "{printed}");

    std::fs::write(store.folder().join("revoked"), "serial 00\nnod 3\n").unwrap();
    let error = store.trust().unwrap_err().to_string();
    assert!(error.contains("revoked: line 2 is neither"), "{error}");
    let pem = world().authority.public().to_pem();
    std::fs::write(store.folder().join("trust.pem"), format!("Revision: x\n{pem}")).unwrap();
    assert!(store.trust().unwrap_err().to_string().contains("Revision"));
    std::fs::write(store.folder().join("trust.pem"), "").unwrap();
    assert!(store.trust().unwrap_err().to_string().contains("trust.pem"));
    std::fs::write(store.folder().join("data.pem"), &sealed).unwrap();
    assert!(store.credential(Plane::Data).unwrap_err().to_string().contains("data.pem"));
}

#[test]
fn requests_are_granted_as_they_are_or_not_at_all() {
    let authority = &world().authority;
    let identity = world().identity(4, Plane::Control);
    let now = SystemTime::now();
    let pem = world().keys[0].request(identity).unwrap();
    let request = Request::from_pem(pem.as_bytes()).unwrap();
    assert_eq!(request.identity(), identity);
    let wrong = world().identity(5, Plane::Control);
    let error = authority.sign(&request, wrong, Lifetime::default(), now).unwrap_err().to_string();
    assert!(error.contains("it asks for carnelian://"), "{error}");
    let other = World::new();
    let error = other.authority.sign(&request, identity, Lifetime::default(), now).unwrap_err();
    assert!(error.to_string().contains("for the cluster"), "{error}");
    let late = now + Duration::from_secs(11 * 366 * 86_400);
    let error = authority.sign(&request, identity, Lifetime::default(), late).unwrap_err();
    assert!(matches!(error, Error::AuthorityExpired(_)), "{error}");

    for (request, expected) in forge::bad_requests(identity) {
        let error = Request::from_pem(&request).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // The signature covers all of it.
    let mut changed = pem.into_bytes();
    let middle = changed.len() / 2;
    changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
    assert!(Request::from_pem(&changed).is_err());
}

#[test]
fn bundles_are_of_one_cluster_and_of_authorities_only() {
    let own = world().authority.public().clone();
    let other = World::new().authority.public().clone();
    let bad = |authorities| Trust::new(authorities).unwrap_err().to_string();
    assert!(bad(vec![]).contains("there is none"));
    assert!(bad(vec![own.clone(), other]).contains("not of one cluster"));
    assert!(bad(vec![own.clone(), own.clone()]).contains("same name"));
    let leaf = world().credential(1, Plane::Data).certificate().clone();
    assert!(Authority::new(leaf).unwrap_err().to_string().contains("not marked"));
    for certificate in forge::bad_authorities() {
        assert!(Authority::new(certificate).is_err());
    }
    assert!(!format!("{:?}", own.cluster()).is_empty());
}
