//! Why a stream refuses a change, in the words that clients know.

use std::fmt;

/// Why an entry could not be added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AppendError {
    ZeroId,
    Exhausted,
    NotAboveLast,
    TooLarge,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroId => "The ID specified in XADD must be greater than 0-0",
            Self::Exhausted => {
                "The stream has exhausted the last possible ID, unable to add more items"
            }
            Self::NotAboveLast => {
                "The ID specified in XADD is equal or smaller than the target stream top item"
            }
            Self::TooLarge => "Elements are too large to be stored",
        })
    }
}

impl std::error::Error for AppendError {}

/// Why the last ID could not be set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetIdError {
    BelowMaxDeleted,
    BelowTopItem,
    AddedBelowLength,
}

impl fmt::Display for SetIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BelowMaxDeleted => {
                "The ID specified in XSETID is smaller than current max_deleted_entry_id"
            }
            Self::BelowTopItem => {
                "The ID specified in XSETID is smaller than the target stream top item"
            }
            Self::AddedBelowLength => {
                "The entries_added specified in XSETID is smaller than the target stream length"
            }
        })
    }
}

impl std::error::Error for SetIdError {}
