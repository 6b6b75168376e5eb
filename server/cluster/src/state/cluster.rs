//! The cluster as a whole: its identity and the settings of `GET /v1/cluster` that are not read-only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Time;
use super::settings::settings;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// The identity in certificates, as 32 hexadecimal digits.
    pub id: String,
    /// The fully qualified name.
    pub name: String,
    pub created: Time,
    pub settings: ClusterSettings,
    pub alert_settings: BTreeMap<String, AlertSetting>,
    /// Counts whole rotations of the certificates between nodes.
    pub rotations: u64,
}

settings! {
    ClusterSettings, ClusterPatch {
        cm_port: u16 = 8443,
        cnm_http_port: u16 = 8080,
        cnm_https_port: u16 = 9443,
        cm_session_timeout_minutes: u32 = 15,
        http_support: bool = false,
        handle_redirects: bool = false,
        control_cipher_suites: String = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
            ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
            ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305".to_owned(),
        data_cipher_list: String = "HIGH:!3DES:!aNULL".to_owned(),
        #[serde(deserialize_with = "words")]
        data_cipher_suites_tls_1_3: Vec<String> = Vec::new(),
        sentinel_cipher_suites: Vec<String> = Vec::new(),
        #[serde(rename = "min_control_TLS_version")]
        min_control_tls_version: TlsVersion = TlsVersion::V12,
        #[serde(rename = "min_data_TLS_version")]
        min_data_tls_version: TlsVersion = TlsVersion::V12,
        #[serde(rename = "min_sentinel_TLS_version")]
        min_sentinel_tls_version: TlsVersion = TlsVersion::V12,
        sentinel_tls_mode: SentinelTls = SentinelTls::Allowed,
        encrypt_pkeys: bool = false,
        mtls_certificate_authentication: bool = false,
        mtls_client_cert_subject_validation_type: super::SubjectValidation =
            super::SubjectValidation::Disabled,
        mtls_authorized_subjects: Vec<super::SubjectRule> = Vec::new(),
        control_plane_basic_authentication: bool = true,
        metrics_auth: bool = false,
        options_method_forbidden: bool = false,
        mask_bdb_credentials: bool = false,
        password_complexity: bool = false,
        password_min_length: u32 = 8,
        password_expiration_duration: u32 = 0,
        password_hashing_algorithm: String = "SHA-256".to_owned(),
        email_alerts: bool = false,
        email_from: String = String::new(),
        smtp_host: String = String::new(),
        smtp_port: u16 = 25,
        smtp_username: String = String::new(),
        smtp_password: String = String::new(),
        smtp_tls_mode: String = "none".to_owned(),
        smtp_use_tls: bool = false,
        reserved_ports: Vec<String> = Vec::new(),
        availability_lag_tolerance_ms: u32 = 100,
        debuginfo_path: String = String::new(),
        logrotate_settings: Value =
            serde_json::json!({"maxage": 7, "maxsize": "200M", "rotate": 10}),
        upgrade_mode: bool = false,
        block_cluster_changes: bool = false,
        use_external_ipv6: bool = true,
        use_ipv6: bool = true,
        wait_command: bool = true,
        bigstore_driver: BigstoreDriver = BigstoreDriver::Speedb,
        /// The life of certificates between nodes (ours).
        internal_cert_validity_days: u32 = 45,
        /// How long an authority for clients lives that is made from now on, at what age it gets a successor, and how long
        /// before its end that begins to sign (ours).
        client_ca_validity_days: u32 = 3652,
        client_ca_successor_after_days: u32 = 1826,
        client_ca_switch_before_expiry_days: u32 = 30,
        /// (ours)
        internode_port: u16 = 3342,
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V12,
    #[serde(rename = "1.3")]
    V13,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SentinelTls {
    Allowed,
    Disabled,
    Required,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BigstoreDriver {
    Speedb,
    Rocksdb,
}

/// An alert of the cluster, of its nodes, or of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AlertSetting {
    /// On or off, and that is all.
    Switch(bool),
    Level {
        enabled: bool,
        threshold: String,
    },
}

impl AlertSetting {
    pub fn enabled(&self) -> bool {
        match self {
            Self::Switch(enabled) | Self::Level { enabled, .. } => *enabled,
        }
    }

    pub fn threshold(&self) -> Option<&str> {
        match self {
            Self::Switch(_) => None,
            Self::Level { threshold, .. } => Some(threshold),
        }
    }
}

/// What is to change of an alert: a bare switch, or a part of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AlertPatch {
    Switch(bool),
    Level {
        #[serde(default)]
        enabled: Option<bool>,
        #[serde(default)]
        threshold: Option<Threshold>,
    },
}

/// A text on the wire; some clients send a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Threshold {
    Text(String),
    Number(i64),
}

impl AlertSetting {
    pub fn merge(&mut self, patch: &AlertPatch) {
        let (new_enabled, new_threshold) = match patch {
            AlertPatch::Switch(enabled) => (Some(*enabled), None),
            AlertPatch::Level { enabled, threshold } => (*enabled, threshold.as_ref()),
        };
        match self {
            Self::Switch(enabled) => *enabled = new_enabled.unwrap_or(*enabled),
            Self::Level { enabled, threshold } => {
                *enabled = new_enabled.unwrap_or(*enabled);
                match new_threshold {
                    Some(Threshold::Text(text)) => text.clone_into(threshold),
                    Some(Threshold::Number(number)) => *threshold = number.to_string(),
                    None => {}
                }
            }
        }
    }
}

/// The alerts of cluster and nodes as they are set in a fresh cluster.
pub fn alert_defaults() -> BTreeMap<String, AlertSetting> {
    let levels = [
        ("cluster_certs_about_to_expire", true, "45"),
        ("cluster_ca_cert_about_to_expire", true, "90"),
        ("node_internal_certs_about_to_expire", true, "45"),
        ("cluster_license_about_to_expire", true, "7"),
        ("cluster_users_count_approaches_limit", true, "90"),
        ("node_ephemeral_storage", true, "70"),
        ("node_persistent_storage", true, "70"),
        ("node_free_flash", true, "70"),
        ("node_memory", false, "70"),
        ("node_cpu_utilization", false, "90"),
        ("node_net_throughput", false, ""),
    ];
    let on = [
        "cluster_ocsp_query_failed",
        "cluster_ocsp_status_revoked",
        "node_checks_error",
        "cluster_node_operation_failed",
    ];
    let off = [
        "cluster_even_node_count",
        "cluster_inconsistent_rl_sw",
        "cluster_internal_bdb",
        "cluster_multiple_nodes_down",
        "cluster_node_joined",
        "cluster_node_remove_completed",
        "cluster_node_remove_failed",
        "cluster_node_remove_abort_completed",
        "cluster_node_remove_abort_failed",
        "cluster_ram_overcommit",
        "cluster_flash_overcommit",
        "cluster_too_few_nodes_for_replication",
        "node_failed",
        "node_aof_slow_disk_io",
        "node_insufficient_disk_aofrw",
    ];
    let levels = levels.into_iter().map(|(name, enabled, threshold)| {
        (name.to_owned(), AlertSetting::Level { enabled, threshold: threshold.to_owned() })
    });
    let switch = |enabled| move |name: &str| (name.to_owned(), AlertSetting::Switch(enabled));
    levels
        .chain(on.into_iter().map(switch(true)))
        .chain(off.into_iter().map(switch(false)))
        .collect()
}

/// A list, or a text with colons between its words: both are on the wire.
fn words<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromWords,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    Ok(T::from_words(match Form::deserialize(deserializer)? {
        Form::List(list) => list,
        Form::Text(text) => {
            text.split(':').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        }
    }))
}

/// So that settings and their patch share an attribute.
trait FromWords {
    fn from_words(words: Vec<String>) -> Self;
}

impl FromWords for Vec<String> {
    fn from_words(words: Vec<String>) -> Self {
        words
    }
}

impl FromWords for Option<Vec<String>> {
    fn from_words(words: Vec<String>) -> Self {
        Some(words)
    }
}
