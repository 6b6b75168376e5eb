//! Data on their way out of a database, or in: exports, imports, backups. What was asked for last, how far it is, and
//! how it ended.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ActionId, DatabaseUid, NodeUid, Refused, Time};

/// As long as a path may be on the systems we run on.
const PATH_BYTES_MAX: usize = 4095;

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferKind {
    Export,
    Import,
    /// An export that the policy of a database asks for.
    Backup,
}

impl TransferKind {
    pub const ALL: [Self; 3] = [Self::Export, Self::Import, Self::Backup];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Import => "import",
            Self::Backup => "backup",
        }
    }
}

/// Where data go, or come from: a folder or a file that the node with the primary can reach.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Location {
    MountPoint { path: String },
}

impl Location {
    /// The types that there are elsewhere.
    const FOREIGN: [&str; 5] = ["url", "sftp", "s3", "gs", "abs"];

    /// Reads one as it comes on the wire. `name` is the member it is in.
    pub fn from_wire(name: &str, value: &Value) -> Result<Self, Refused> {
        let Value::Object(fields) = value else {
            return Err(Refused::schema(format!("{name}: an object is expected")));
        };
        let text = |field: &str| match fields.get(field) {
            Some(Value::String(text)) => Ok(text.as_str()),
            _ => Err(Refused::schema(format!("{name}: {field} is needed, a string"))),
        };
        match text("type")? {
            "mount_point" => {}
            foreign if Self::FOREIGN.contains(&foreign) => {
                let description = format!("{name}: {foreign} is not offered, mount_point is");
                return Err(Refused::invalid("not_supported", description));
            }
            _ => return Err(Refused::schema(format!("{name}: type is mount_point"))),
        }
        if let Some(other) = fields.keys().find(|field| !["type", "path"].contains(&&***field)) {
            return Err(Refused::schema(format!("{name}: a mount_point has no {other}")));
        }
        let location = Self::MountPoint { path: text("path")?.to_owned() };
        location.check(name)?;
        Ok(location)
    }

    /// Whether it can be a place at all: whether it is there, only the node knows that goes there.
    pub(super) fn check(&self, name: &str) -> Result<(), Refused> {
        let Self::MountPoint { path } = self;
        let wrong = |why: &str| Err(Refused::bad("invalid_param", format!("{name}: {why}")));
        if !path.starts_with('/') {
            return wrong("path has to begin with /");
        }
        if path.contains('\0') || PATH_BYTES_MAX < path.len() {
            return wrong("path is none");
        }
        // It is to be seen at once where it leads.
        match Path::new(path).components().any(|part| part == Component::ParentDir) {
            true => wrong("path must not have .. in it"),
            false => Ok(()),
        }
    }

    pub fn path(&self) -> &Path {
        let Self::MountPoint { path } = self;
        Path::new(path)
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferStage {
    #[default]
    Idle,
    /// The node has yet to begin.
    Asked,
    Running,
    Succeeded,
    Failed,
}

impl TransferStage {
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Asked | Self::Running)
    }
}

/// The last one of its kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transfer {
    pub stage: TransferStage,
    /// Names it: what is told of another one comes too late.
    pub id: Option<ActionId>,
    /// Who does it.
    pub node: Option<NodeUid>,
    pub locations: Vec<Location>,
    /// A percentage.
    pub progress: u8,
    /// A word for interfaces; empty if nothing has failed.
    pub failure: String,
    /// When it was asked for.
    pub begun: Option<Time>,
    /// When one last succeeded.
    pub succeeded: Option<Time>,
}

impl Transfer {
    pub const fn is_under_way(&self) -> bool {
        self.stage.is_under_way()
    }

    /// What the file is called that an export makes: nobody outside names it, and no two are called the same.
    pub fn file_name(&self, kind: TransferKind, uid: DatabaseUid, database: &str) -> String {
        let at = self.begun.unwrap_or_default().to_string().replace([':', '-'], "");
        let id = self.id.as_ref().map_or("", |id| id.0.as_str());
        // Only what cannot lead elsewhere.
        let plain = |text: &str, most: usize| -> String {
            text.chars().filter(|it| it.is_ascii_alphanumeric()).take(most).collect()
        };
        let name: String = database
            .chars()
            .map(|it| if it.is_ascii_alphanumeric() { it } else { '-' })
            .take(63)
            .collect();
        let before = if kind == TransferKind::Backup { "backup-" } else { "" };
        format!("{before}{name}-{uid}-{}-{}.rdb", plain(&at, 16), plain(id, 8))
    }

    fn status(&self, kind: TransferKind) -> &'static str {
        match (self.stage, kind) {
            (TransferStage::Idle, _) => "",
            (TransferStage::Asked, TransferKind::Import) => "initializing",
            (TransferStage::Running, TransferKind::Import) => "importing",
            (TransferStage::Asked | TransferStage::Running, _) => "exporting",
            (TransferStage::Succeeded, _) => "succeeded",
            (TransferStage::Failed, _) => "failed",
        }
    }
}

/// What a node tells of one that it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferReport {
    Begun,
    /// A percentage.
    Progress(u8),
    Succeeded,
    /// In a word of the interface, such as `wrong-file-path`.
    Failed(String),
}

/// Those of one database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transfers {
    pub export: Transfer,
    pub import: Transfer,
    pub backup: Transfer,
}

impl Transfers {
    pub const fn of(&self, kind: TransferKind) -> &Transfer {
        match kind {
            TransferKind::Export => &self.export,
            TransferKind::Import => &self.import,
            TransferKind::Backup => &self.backup,
        }
    }

    pub const fn of_mut(&mut self, kind: TransferKind) -> &mut Transfer {
        match kind {
            TransferKind::Export => &mut self.export,
            TransferKind::Import => &mut self.import,
            TransferKind::Backup => &mut self.backup,
        }
    }

    /// The one that is under way: there is one at a time.
    pub fn current(&self) -> Option<(TransferKind, &Transfer)> {
        let mut all = TransferKind::ALL.into_iter().map(|kind| (kind, self.of(kind)));
        all.find(|(_, transfer)| transfer.is_under_way())
    }

    /// Their members of the object of a database.
    pub(super) fn to_wire(&self) -> serde_json::Map<String, Value> {
        let mut wire = serde_json::Map::new();
        for kind in TransferKind::ALL {
            let (name, transfer) = (kind.name(), self.of(kind));
            wire.insert(format!("{name}_status"), transfer.status(kind).into());
            wire.insert(format!("{name}_progress"), f64::from(transfer.progress).into());
            wire.insert(format!("{name}_failure_reason"), transfer.failure.clone().into());
            if kind != TransferKind::Import {
                let last = transfer.succeeded.map(|at| at.to_string()).unwrap_or_default();
                wire.insert(format!("last_{name}_time"), last.into());
            }
        }
        wire
    }
}
