//! Links on which a certificate is shown that a customer has provided: who is at the other end is known all the same,
//! and the provided one opens nothing.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use zeroize::Zeroizing;

use super::forge::Shown;
use super::*;
use crate::certificates::{CertificateName, ManagedBy, Shared};

/// By an authority that the cluster has never heard of.
fn shared(plane: Plane, change: impl FnOnce(&mut CertificateParams)) -> Shared {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(params, KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(vec!["nodes.example".to_owned()]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = world().rcgen_key();
    Shared {
        name: CertificateName::of_plane(plane),
        managed_by: ManagedBy::Customer,
        certificate: params.signed_by(&key, &issuer).unwrap().pem(),
        key: Some(Zeroizing::new(key.serialize_pem())),
    }
}

fn provided(plane: Plane) -> Arc<Provided> {
    Arc::new(Provided::of(&shared(plane, |_| {})).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_know_one_another_whichever_of_them_shows_what_was_provided() {
    for versions in [Versions::Tls12, Versions::Tls13] {
        let mut listening = Listening::start(world().node_with(1, settings(versions))).await;
        let node = world().node_with(2, settings(versions));
        for plane in Plane::ALL {
            let what = provided(plane);
            for (at_one, at_other) in [(true, true), (true, false), (false, true), (false, false)] {
                listening.node.provide(plane, at_one.then(|| Arc::clone(&what)));
                node.provide(plane, at_other.then(|| Arc::clone(&what)));
                let (mut outgoing, mut incoming) = listening.link(&node, plane).await;
                exchange(&mut outgoing, &mut incoming).await;
                assert_eq!(outgoing.peer().identity, world().identity(1, plane));
                assert_eq!(incoming.peer().identity, world().identity(2, plane));
                assert_eq!(incoming.peer().serial, *node.credential(plane).serial());
                assert_eq!(outgoing.own_serial(), &node.shown_serial(plane));
                assert!(node.links().outdated(plane, &node.shown_serial(plane)).is_empty());
                let own = node.links().outdated(plane, node.credential(plane).serial());
                assert_eq!(own.len(), usize::from(at_other));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_provided_lets_nobody_in_without_the_key_of_a_node() {
    let limit = Duration::from_secs(2);
    let of = |uid| {
        let settings = Settings { handshake_limit: limit, ..settings(Versions::Both) };
        world().node_with(uid, settings)
    };
    let mut listening = Listening::start(of(1)).await;
    let what = provided(Plane::Data);
    let leaf = what.certificate().chain()[0].clone();
    let own = world().credential(2, Plane::Data).certificate().clone();
    let showing =
        |chain| Client { shown: Some(Shown::new(chain)), ..Client::of_node(2, Plane::Data) };

    assert!(!showing(vec![leaf.clone()]).connect(listening.address).await);
    let refusal = listening.result().await.unwrap_err();
    assert_eq!(refusal.kind(), RefusalKind::Authority, "{refusal}");
    // The certificate of a node is no secret; whoever shows it has to prove the rest.
    assert!(!showing(vec![leaf.clone(), own.clone()]).connect(listening.address).await);
    assert_eq!(listening.result().await.unwrap_err(), Refusal::TooSlow { limit });
    let mut stream =
        showing(vec![leaf.clone(), own.clone()]).stream(listening.address).await.unwrap();
    stream.write_all(&[&256u16.to_be_bytes()[..], &[7; 256]].concat()).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(listening.result().await.unwrap_err(), Refusal::NotItsKey);
    let foreign = forge::World::new().credential(2, Plane::Data).certificate().clone();
    assert!(!showing(vec![leaf.clone(), foreign]).connect(listening.address).await);
    let refusal = listening.result().await.unwrap_err();
    assert_eq!(refusal.kind(), RefusalKind::Authority, "{refusal}");

    // A node of the cluster that shows what has expired, and one that was revoked.
    let expired = shared(Plane::Data, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    });
    let expired = Arc::new(Provided::of(&expired).unwrap());
    assert!(what.is_good(SystemTime::now()) && !expired.is_good(SystemTime::now()));
    let node = of(2);
    let connector = Connector::new(Arc::clone(&node));
    for (shown, kind) in [(expired, RefusalKind::Expired), (what, RefusalKind::Revoked)] {
        if kind == RefusalKind::Revoked {
            listening.node.revoke_node(world().uid(2));
        }
        node.provide(Plane::Data, Some(shown));
        connector.connect(listening.address, world().uid(1), Plane::Data).await.unwrap_err();
        let refusal = listening.result().await.unwrap_err();
        assert_eq!(refusal.kind(), kind, "{refusal}");
    }
}
