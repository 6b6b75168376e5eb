//! Renewing certificates and changing authorities with real keys, files and links.

use std::collections::{BTreeMap, BTreeSet};

use tempfile::TempDir;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A node with its folder.
struct Kept {
    node: Arc<Node>,
    store: Store,
    _folder: TempDir,
}

impl Kept {
    fn new(uid: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for plane in Plane::ALL {
            store.save_credential(&world().credential(uid, plane)).unwrap();
        }
        store.save_trust(&world().trust()).unwrap();
        let node = Self::start(&store);
        Self { node, store, _folder: folder }
    }

    /// As after a restart.
    fn start(store: &Store) -> Arc<Node> {
        let [control, data] = Plane::ALL.map(|plane| store.credential(plane).unwrap());
        let settings = super::settings(Versions::Both);
        Node::new(control, data, store.trust().unwrap(), settings).unwrap()
    }

    fn renew(&self, plane: Plane, signer: &SigningAuthority) -> Issued {
        let request = self.node.begin_renewal(&self.store, plane).unwrap();
        let request = Request::from_pem(request.as_bytes()).unwrap();
        let granted = self.node.identity(plane);
        signer.sign(&request, granted, Lifetime::default(), SystemTime::now()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_and_kept_and_links_live_on() {
    let kept = Kept::new(1);
    let node = &kept.node;
    let mut listening = Listening::start(world().node(2)).await;
    let (mut ours, mut theirs) = listening.link(node, Plane::Data).await;
    let before = node.credential(Plane::Data).serial().clone();
    let policy = RenewalPolicy::default();
    let now = SystemTime::now();
    assert!(node.due(policy, now + 29 * DAY).is_empty());
    assert_eq!(node.due(policy, now + 30 * DAY), Plane::ALL);

    let issued = kept.renew(Plane::Data, &world().authority);
    // Begun, and not answered yet: as before, also after a crash.
    assert_eq!(*Kept::start(&kept.store).credential(Plane::Data).serial(), before);
    let foreign = world().credential(1, Plane::Data).certificate().clone();
    assert!(node.finish_renewal(&kept.store, Plane::Data, foreign).is_err(), "another key's");
    let control = kept.renew(Plane::Control, &world().authority);
    assert!(node.finish_renewal(&kept.store, Plane::Data, control.certificate.clone()).is_err());
    assert_eq!(*node.credential(Plane::Data).serial(), before);

    let old = node.finish_renewal(&kept.store, Plane::Data, issued.certificate.clone()).unwrap();
    assert_eq!(old, before);
    let again = node.finish_renewal(&kept.store, Plane::Data, issued.certificate).unwrap();
    assert_eq!(again, issued.serial);
    assert_eq!(*node.credential(Plane::Data).serial(), issued.serial);
    assert_eq!(*Kept::start(&kept.store).credential(Plane::Data).serial(), issued.serial);
    exchange(&mut ours, &mut theirs).await;
    assert_eq!(node.links().outdated(Plane::Data, &issued.serial).len(), 1);
    let (new, _theirs) = listening.link(node, Plane::Data).await;
    assert_eq!(node.links().outdated(Plane::Data, &issued.serial).len(), 1);
    drop((ours, new));
    assert_eq!(node.report(BTreeSet::new()).old_links, 0);

    let error = node.finish_renewal(&kept.store, Plane::Data, control.certificate).unwrap_err();
    assert!(error.to_string().contains("nothing was asked for"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_authority_follows_another_and_no_link_is_ever_refused() {
    let next = world().unnamed_authority();
    let [old, new] = [world().authority.public(), next.public()];
    let nodes: BTreeMap<NodeUid, Kept> = (1..=2).map(|n| (world().uid(n), Kept::new(n))).collect();
    let members: BTreeSet<NodeUid> = nodes.keys().copied().collect();
    let mut now = Succession::begin(&old.fingerprint(), &new.fingerprint());
    let mut listening = Listening::start(Arc::clone(&nodes[&world().uid(1)].node)).await;
    let two = Arc::clone(&nodes[&world().uid(2)].node);
    let mut link = Some(listening.link(&two, Plane::Data).await);

    let mut phases = vec![now.phase];
    loop {
        let mut can_sign = BTreeSet::from([old.fingerprint()]);
        for kept in nodes.values() {
            // Until there is nothing more to do; duties come of what has been done.
            loop {
                let duties = now.duties(&kept.node.report(can_sign.clone()));
                let Some(duty) = duties.first() else { break };
                match duty {
                    Duty::Trust(wanted) => {
                        let both = [old, new].into_iter().cloned();
                        let all = both.filter(|one| wanted.contains(&one.fingerprint())).collect();
                        kept.node.trust_only(all, 1).unwrap();
                        kept.store.save_trust(&kept.node.trust()).unwrap();
                    }
                    Duty::Sign(authority) => drop(can_sign.insert(authority.clone())),
                    Duty::Renew(plane) => {
                        assert_eq!(now.signer(), new.fingerprint());
                        let issued = kept.renew(*plane, &next);
                        let certificate = issued.certificate;
                        kept.node.finish_renewal(&kept.store, *plane, certificate).unwrap();
                    }
                    Duty::RemakeLinks => {
                        // The new one is there before the old one goes.
                        let remade = listening.link(&two, Plane::Data).await;
                        drop(link.replace(remade));
                    }
                }
            }
            // Whatever has been done by now, at one node or both: links can be made.
            for plane in Plane::ALL {
                listening.link(&two, plane).await;
            }
        }
        can_sign.insert(new.fingerprint());
        let reports: BTreeMap<_, _> =
            nodes.iter().map(|(uid, kept)| (*uid, kept.node.report(can_sign.clone()))).collect();
        let Some(after) = now.advance(&members, &reports) else {
            assert!(now.is_over(&members, &reports));
            break;
        };
        now = after;
        phases.push(now.phase);
    }
    assert_eq!(phases, Phase::ALL[..5]);
    let (mut outgoing, mut incoming) = link.unwrap();
    exchange(&mut outgoing, &mut incoming).await;
    for kept in nodes.values() {
        let again = Kept::start(&kept.store).report(BTreeSet::new());
        assert_eq!(again.trusts, BTreeSet::from([new.fingerprint()]));
        assert!(again.leaves.values().all(|signer| *signer == new.fingerprint()));
    }
}

#[test]
fn the_authority_is_kept_sealed_until_it_is_kept_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let key = SealKey::create(&store.seal_key_file()).unwrap();
    let next = world().unnamed_authority();
    store.save_authority(&next, &key).unwrap();
    let kept = store.authority(&key).unwrap();
    assert_eq!(kept.public().fingerprint(), next.public().fingerprint());
    for _ in 0..2 {
        store.forget_authority().unwrap();
        assert!(!store.has_authority());
    }

    // Another node opens it with the same key, and nobody with another.
    let sealed = next.seal(&key).unwrap();
    let path = folder.path().join("given.key");
    let given = SealKey::install(&path, &key.reveal().unwrap()).unwrap();
    let origin = std::path::Path::new("the control plane");
    assert!(SigningAuthority::unseal(&sealed, &given, origin).is_ok());
    assert!(SigningAuthority::unseal(&sealed, &SealKey::open(&path).unwrap(), origin).is_ok());
    let other = SealKey::create(&folder.path().join("other.key")).unwrap();
    let error = SigningAuthority::unseal(&sealed, &other, origin).err().unwrap().to_string();
    assert!(error.contains("the control plane does not open"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_out_whatever_it_shows() {
    let mut listening = Listening::start(world().node(1)).await;
    let node = Arc::clone(&listening.node);
    let gone = world().node(2);
    let (_ours, _theirs) = listening.link(&gone, Plane::Control).await;
    assert_eq!(node.revoke_node(world().uid(2)).len(), 1);
    for from in [gone, world().node(2)] {
        let connector = Connector::new(from);
        assert!(connector.connect(listening.address, node.uid(), Plane::Data).await.is_err());
        let refusal = listening.result().await.unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::Revoked);
    }
}
