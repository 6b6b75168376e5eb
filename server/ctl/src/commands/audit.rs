//! `audit verify`: whether the record of changes is as it was written.

use anyhow::bail;

use crate::connection::Connection;
use crate::words::Words;

pub fn run(connection: &Connection, mut words: Words) -> anyhow::Result<()> {
    match words.expect("verify or show")?.as_str() {
        "verify" => {
            words.end()?;
            let verdict = connection.client()?.get("/v1/audit/verify")?;
            let entries = &verdict["entries"];
            if verdict["intact"] != serde_json::Value::Bool(true) {
                bail!(
                    "the audit log is broken at line {}: {}",
                    verdict["broken_line"],
                    verdict["reason"].as_str().unwrap_or("unknown")
                );
            }
            println!("OK. {entries} entries, head {}", verdict["head"].as_str().unwrap_or("-"));
        }
        "show" => {
            let limit: u32 = match words.next() {
                Some(word) => word.parse()?,
                None => 20,
            };
            let shown = connection.client()?.get(&format!("/v1/audit?limit={limit}"))?;
            for entry in shown["entries"].as_array().into_iter().flatten() {
                let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
                println!(
                    "{} {} {} {} {}",
                    text("time"),
                    text("user"),
                    text("method"),
                    text("path"),
                    entry["status"]
                );
            }
        }
        other => bail!("{other:?} is neither verify nor show"),
    }
    Ok(())
}
