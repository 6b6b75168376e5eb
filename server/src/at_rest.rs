//! Encryption of the files that data is kept in, as configured.

use carnelian_config::Config;
use carnelian_persistence::seal::Policy;

/// Which files are to be sealed, and with which keys.
pub fn policy(config: &Config) -> Policy {
    let key_file = config.dir.join(&config.data_at_rest_key_file);
    Policy::new(key_file, config.data_at_rest_encryption)
}
