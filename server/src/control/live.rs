//! What the REST interface sees of this process, and the few things it asks of it directly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carnelian_admin::{Bootstrap, BootstrapFailure, Figures, Live, LocalNode, Waiting};
use carnelian_cluster::state::{
    AddNode, Authority, DatabaseUid, NodeSettings, NodeUid, PolicyPatch, Refused, SealedKey,
};
use carnelian_cluster::{Admission, ControlError, Handler};
use carnelian_tls::certificates::CertificateTable;
use serde_json::Value;

use super::found::{self, Founding};
use super::{Member, clients, command, host, join};
use crate::acl::Acl;
use crate::clock;
use crate::database::Database;
use crate::databases::Stage;
use crate::info;

pub struct NodeLive {
    member: Arc<Member>,
}

impl NodeLive {
    pub fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

impl Live for NodeLive {
    fn local(&self) -> LocalNode {
        LocalNode {
            facts: host::facts(&self.member),
            addresses: host::addresses(&self.member),
            uptime_s: uptime_s(&self.member),
        }
    }

    fn create_cluster(&self, request: Bootstrap) -> Waiting<'_, Result<(), BootstrapFailure>> {
        let member = Arc::clone(&self.member);
        Box::pin(async move {
            let failed = |message: String| BootstrapFailure { code: "config_error", message };
            let policy = PolicyPatch::parse(&Value::Object(request.policy.clone()), false)
                .map_err(|refused| failed(refused.description))?;
            let mut node = host::node_settings(&member);
            settle(&mut node, &request);
            let Bootstrap { name, username, password, .. } = request;
            let founding = Founding { name, email: username, password, node, policy };
            found::found(&member, founding).await.map_err(|error| failed(format!("{error:#}")))
        })
    }

    fn join_cluster(&self, request: Bootstrap) -> Waiting<'_, Result<(), BootstrapFailure>> {
        let member = Arc::clone(&self.member);
        Box::pin(async move { join::join(&member, request).await })
    }

    fn admit(&self, new: AddNode) -> Waiting<'_, Result<Admission, Refused>> {
        let admitted = self.member.control.admit(new);
        Box::pin(async move { admitted.await.map_err(|error| error.refusal()) })
    }

    fn sign(&self, node: NodeUid, requests: String) -> Waiting<'_, Result<Vec<String>, Refused>> {
        let member = Arc::clone(&self.member);
        Box::pin(async move {
            member.control.sign(node, &requests).await.map_err(|error| error.refusal())
        })
    }

    fn new_authority(&self) -> Waiting<'_, Result<Authority, Refused>> {
        let member = Arc::clone(&self.member);
        Box::pin(async move {
            let state = member.control.state();
            let cluster = state.cluster.as_ref().ok_or_else(no_key)?.id.clone();
            let now = member.control.now();
            let made =
                tokio::task::spawn_blocking(move || member.keys.new_authority(&cluster, now));
            let made = made.await.map_err(|error| internal(&error))?;
            made.map_err(|error| internal(&error))
        })
    }

    fn add_client_authority(&self) -> Waiting<'_, Result<(), Refused>> {
        let member = Arc::clone(&self.member);
        Box::pin(async move {
            let added = clients::add_successor(&member).await;
            added.map_err(|error| match error.downcast::<ControlError>() {
                Ok(error) => error.refusal(),
                Err(error) => internal(&error),
            })
        })
    }

    fn figures(&self, node: NodeUid) -> Waiting<'_, Option<Figures>> {
        let member = Arc::clone(&self.member);
        Box::pin(async move {
            if member.control.node() == Some(node) {
                return tokio::task::spawn_blocking(move || own_figures(&member)).await.ok();
            }
            let answer = member.control.ask(node, FIGURES, Vec::new(), ASK_TIME).await.ok()?;
            serde_json::from_slice(&answer).ok()
        })
    }

    fn command(&self, database: u32, words: Vec<String>) -> Waiting<'_, Result<Value, Refused>> {
        let member = Arc::clone(&self.member);
        Box::pin(async move {
            let state = member.control.state();
            let described = state.databases.get(&DatabaseUid(database));
            let primary = described.map(|described| described.placement.primary);
            match primary.filter(|primary| member.control.node() != Some(*primary)) {
                None => run_here(member, database, words).await,
                Some(primary) => run_there(&member, primary, database, words).await,
            }
        })
    }

    fn serves(&self, database: u32) -> bool {
        let server = &self.member.server;
        let here = server.database(database).ok();
        let listens = here.as_ref().is_some_and(|it| !it.listeners.lock().kinds().is_empty());
        match server.endpoints.entrance(database) {
            Some(entrance) => entrance.route().is_some() && (listens || entrance.is_open()),
            None => listens && here.is_some_and(|here| here.stage.get() == Stage::Here),
        }
    }

    fn seal(&self, key_pem: &str) -> Result<SealedKey, Refused> {
        let key = self.member.key().ok_or_else(no_key)?;
        let sealed = key.seal(key_pem.as_bytes());
        sealed.map(SealedKey).map_err(|error| internal(&error))
    }

    fn certificates(&self) -> Arc<CertificateTable> {
        Arc::clone(&self.member.table)
    }

    fn check_rules(&self, rules: &str) -> Result<(), String> {
        let words = rules.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        let acl = Acl::new(&self.member.server.registry);
        acl.check_replace(&[(b"rules".to_vec(), Some(words))], false).map_err(|(_, why)| why)
    }

    fn token_secret(&self) -> Option<[u8; 32]> {
        Some(self.member.key()?.derive("tokens"))
    }

    fn debug_files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for database in &*self.member.server.databases.read() {
            let name = format!("database-{}/info.txt", database.uid);
            files.push((name, info_of(&self.member, database).into_bytes()));
        }
        files
    }
}

/// What nodes ask one another for, beside the state; and how long it may take.
const FIGURES: &str = "figures";
const COMMAND: &str = "command";
const ASK_TIME: Duration = Duration::from_secs(2);
const COMMAND_TIME: Duration = Duration::from_secs(30);

/// Has this node answer the others.
pub fn answer_others(member: &Arc<Member>) {
    let of = Arc::downgrade(member);
    let figures: Handler = Arc::new(move |_, _| {
        let member = of.upgrade();
        Box::pin(async move {
            let member = member.ok_or("it is being closed")?;
            let figures = tokio::task::spawn_blocking(move || own_figures(&member)).await;
            let figures = figures.map_err(|error| error.to_string())?;
            serde_json::to_vec(&figures).map_err(|error| error.to_string())
        })
    });
    member.control.answer(FIGURES, figures);
    let of = Arc::downgrade(member);
    let command: Handler = Arc::new(move |_, body| {
        let member = of.upgrade();
        Box::pin(async move {
            let member = member.ok_or("it is being closed")?;
            let (database, words): (u32, Vec<String>) =
                serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            let answer = run_here(member, database, words).await;
            serde_json::to_vec(&answer).map_err(|error| error.to_string())
        })
    });
    member.control.answer(COMMAND, command);
}

async fn run_here(
    member: Arc<Member>,
    database: u32,
    words: Vec<String>,
) -> Result<Value, Refused> {
    let run = move || {
        let database = member
            .server
            .database(database)
            .map_err(|error| Refused::new(503, "bdb_unavailable", error.to_string()))?;
        let words: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
        let reply = command::run(&member.server, &database, &words)
            .map_err(|error| Refused::new(503, "bdb_unavailable", format!("{error:#}")))?;
        match reply.error() {
            Some(error) => {
                let error = String::from_utf8_lossy(error).into_owned();
                Err(Refused::new(406, "command_failed", error))
            }
            None => Ok(command::to_json(&reply)),
        }
    };
    tokio::task::spawn_blocking(run)
        .await
        .unwrap_or_else(|_| Err(Refused::new(500, "internal_error", "the command was not run")))
}

async fn run_there(
    member: &Member,
    primary: NodeUid,
    database: u32,
    words: Vec<String>,
) -> Result<Value, Refused> {
    let unavailable =
        |reason: String| Refused::new(503, "bdb_unavailable", format!("node {primary}: {reason}"));
    let body = serde_json::to_vec(&(database, words)).map_err(|error| internal(&error))?;
    let answer = member.control.ask(primary, COMMAND, body, COMMAND_TIME).await;
    let answer: Result<Value, Refused> =
        serde_json::from_slice(&answer.map_err(unavailable)?).map_err(|error| internal(&error))?;
    answer
}

/// What was asked for of the node.
pub fn settle(node: &mut NodeSettings, request: &Bootstrap) {
    if let Some(addr) = request.addr {
        node.addr = addr.to_string();
    }
    node.external_addr.clone_from(&request.external_addr);
    node.rack_id.clone_from(&request.rack_id);
    node.second_rack_id.clone_from(&request.second_rack_id);
    node.accept_servers = request.accept_servers;
    if let Some(most) = request.max_listeners {
        node.max_listeners = most;
    }
    if let Some(most) = request.max_redis_servers {
        node.max_redis_servers = most;
    }
}

fn uptime_s(member: &Member) -> u64 {
    clock::wall_ms().saturating_sub(member.server.identity.started_ms) / 1000
}

fn own_figures(member: &Member) -> Figures {
    let host::Memory { total, free, available } = host::memory();
    let (cpu_user_s, cpu_system_s, cpu_idle_s) = host::processors();
    let (_, storage_free) = host::storage(member);
    let databases = member.server.databases.read().clone();
    let info: BTreeMap<u32, String> =
        databases.iter().map(|database| (database.uid, info_of(member, database))).collect();
    Figures {
        uptime_s: uptime_s(member),
        total_memory: total,
        free_memory: free,
        available_memory: available,
        cpu_user_s,
        cpu_system_s,
        cpu_idle_s,
        ephemeral_storage_free: storage_free,
        persistent_storage_free: storage_free,
        info,
    }
}

fn info_of(member: &Member, database: &Arc<Database>) -> String {
    info::render(&member.server, database, &[b"all"], None)
}

fn no_key() -> Refused {
    Refused::new(503, "not_bootstrapped", "this node is in no cluster")
}

fn internal(error: &dyn std::fmt::Display) -> Refused {
    Refused::new(500, "internal_error", error.to_string())
}
