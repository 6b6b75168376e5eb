//! Data of a database on their way out and in: exports and imports, and how the last ones ended.

use std::sync::Arc;

use carnelian_cluster::state::{Change, Location, TransferKind};
use serde_json::{Map, Value};

use crate::admin::{Admin, action_id};
use crate::answer::{Answer, Refusal, Reply};
use crate::auth::Right;
use crate::bootstrap::flag;
use crate::handlers::bdbs::find;
use crate::request::Request;
use crate::routes::{Route, later, post, put};

pub const ROUTES: &[Route] = &[
    post(
        "/v1/bdbs/{uid}/actions/export",
        Right::Databases,
        later!(export),
        "Begin to write all data into a new RDB file, in a folder that the primary's node can reach",
    )
    .takes("Export"),
    post(
        "/v1/bdbs/{uid}/actions/import",
        Right::Databases,
        later!(import),
        "Begin to replace all data by those of RDB files that the primary's node can reach",
    )
    .takes("Import"),
    put(
        "/v1/bdbs/{uid}/actions/export_reset_status",
        Right::Databases,
        later!(reset_export),
        "Forget how the last export ended",
    ),
    put(
        "/v1/bdbs/{uid}/actions/import_reset_status",
        Right::Databases,
        later!(reset_import),
        "Forget how the last import ended",
    ),
    put(
        "/v1/bdbs/{uid}/actions/backup_reset_status",
        Right::Databases,
        later!(reset_backup),
        "Forget how the last backup ended",
    ),
];

const DESTINATION: &str = "export_location";
const SOURCES: &str = "dataset_import_sources";
const MAIL: &str = "email_notification";

async fn export(admin: Arc<Admin>, request: Request) -> Reply {
    let body = checked(&request, DESTINATION)?;
    let location =
        body.get(DESTINATION).ok_or_else(|| Refusal::schema(format!("{DESTINATION} is needed")))?;
    let location = Location::from_wire(DESTINATION, location)?;
    start(&admin, &request, TransferKind::Export, vec![location]).await
}

async fn import(admin: Arc<Admin>, request: Request) -> Reply {
    let body = checked(&request, SOURCES)?;
    let wrong = || Refusal::schema(format!("{SOURCES} is needed, a list of locations"));
    let sources = body.get(SOURCES).and_then(Value::as_array).ok_or_else(wrong)?;
    let locations: Result<Vec<_>, _> =
        sources.iter().map(|source| Location::from_wire(SOURCES, source)).collect();
    start(&admin, &request, TransferKind::Import, locations?).await
}

/// The body, with nothing in it that would be passed over in silence.
fn checked(request: &Request, known: &str) -> Result<Map<String, Value>, Refusal> {
    let body = request.object()?;
    if let Some(name) = body.keys().find(|name| ![known, MAIL].contains(&name.as_str())) {
        return Err(Refusal::schema(format!("there is no member {name}")));
    }
    if flag(&body, MAIL)? == Some(true) {
        return Err(Refusal::not_acceptable("not_supported", format!("{MAIL}: no mail is sent")));
    }
    Ok(body)
}

async fn start(
    admin: &Admin,
    request: &Request,
    kind: TransferKind,
    locations: Vec<Location>,
) -> Reply {
    let database = find(&admin.state(), request)?.uid;
    let change = Change::StartTransfer { database, kind, locations, id: action_id()? };
    if request.is_dry_run() {
        admin.plane.rehearse(&change)?;
    } else {
        admin.change(change).await?;
    }
    Ok(Answer::empty())
}

async fn reset_export(admin: Arc<Admin>, request: Request) -> Reply {
    reset(&admin, &request, TransferKind::Export).await
}

async fn reset_import(admin: Arc<Admin>, request: Request) -> Reply {
    reset(&admin, &request, TransferKind::Import).await
}

async fn reset_backup(admin: Arc<Admin>, request: Request) -> Reply {
    reset(&admin, &request, TransferKind::Backup).await
}

async fn reset(admin: &Admin, request: &Request, kind: TransferKind) -> Reply {
    let database = find(&admin.state(), request)?.uid;
    request.object()?;
    admin.change(Change::ResetTransfer { database, kind }).await?;
    Ok(Answer::empty())
}
