//! The cache of EVAL's scripts: compiled once, found by their digest, or by their source, which
//! spares computing the digest.

use std::collections::HashMap;
use std::sync::Arc;

use crate::flags::Flags;
use crate::raw::Callable;
use ahash::RandomState;

/// How many scripts that only EVAL has brought are kept; those of SCRIPT LOAD stay.
const EVALUATED_MAX: usize = 500;

/// A script's digest in lower-case hexadecimal digits.
pub type Sha = [u8; 40];

/// A script in the cache. It goes stale with the next change of the cache.
#[derive(Clone, Copy, Debug)]
pub struct ScriptHandle {
    pub(crate) index: usize,
    pub flags: Flags,
    pub sha: Sha,
}

/// Whether a script was loaded to stay, or only evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Evaluated,
    Loaded,
}

pub(crate) struct Script {
    pub(crate) function: Callable,
    body: Arc<[u8]>,
    flags: Flags,
    sha: Sha,
    origin: Origin,
    /// When it was used last, in uses of any script.
    used: u64,
}

/// Invariant: `by_sha` and `by_body` name the same places, those of `places` that hold a script.
#[derive(Default)]
pub(crate) struct Scripts {
    places: Vec<Option<Script>>,
    free: Vec<usize>,
    by_sha: HashMap<Sha, usize, RandomState>,
    by_body: HashMap<Arc<[u8]>, usize, RandomState>,
    evaluated: usize,
    uses: u64,
    evicted: u64,
    body_bytes: usize,
}

impl Scripts {
    pub(crate) fn by_body(&self, body: &[u8]) -> Option<ScriptHandle> {
        self.by_body.get(body).and_then(|index| self.handle(*index))
    }

    /// The digest may be in capitals.
    pub(crate) fn by_sha(&self, sha: &[u8]) -> Option<ScriptHandle> {
        let mut digits: Sha = sha.try_into().ok()?;
        digits.make_ascii_lowercase();
        self.by_sha.get(&digits).and_then(|index| self.handle(*index))
    }

    /// As SCRIPT EXISTS looks: capitals are other digits.
    pub(crate) fn exists(&self, sha: &[u8]) -> bool {
        <&Sha>::try_from(sha).is_ok_and(|sha| self.by_sha.contains_key(sha))
    }

    pub(crate) fn body(&self, handle: &ScriptHandle) -> &[u8] {
        self.places.get(handle.index).and_then(Option::as_ref).map_or(&[], |script| &script.body)
    }

    pub(crate) fn insert(
        &mut self,
        body: &[u8],
        sha: Sha,
        flags: Flags,
        function: Callable,
        origin: Origin,
    ) -> ScriptHandle {
        if origin == Origin::Evaluated {
            while EVALUATED_MAX <= self.evaluated && self.evict() {}
            self.evaluated += 1;
        }
        let body: Arc<[u8]> = body.into();
        self.body_bytes += body.len();
        let script =
            Script { function, body: Arc::clone(&body), flags, sha, origin, used: self.uses };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push(None);
                self.places.len() - 1
            }
        };
        self.places[index] = Some(script);
        self.by_sha.insert(sha, index);
        self.by_body.insert(body, index);
        ScriptHandle { index, flags, sha }
    }

    /// Keeps a script for good: SCRIPT LOAD of one that was only evaluated leaves it as it is.
    pub(crate) fn used(&mut self, handle: &ScriptHandle) -> Option<&Callable> {
        self.uses += 1;
        let script = self.places.get_mut(handle.index)?.as_mut()?;
        script.used = self.uses;
        Some(&script.function)
    }

    pub(crate) fn clear(&mut self) {
        let (uses, evicted) = (self.uses, self.evicted);
        *self = Self { uses, evicted, ..Self::default() };
    }

    pub(crate) fn len(&self) -> usize {
        self.by_sha.len()
    }

    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Bytes of the sources and what finds them.
    pub(crate) fn bytes(&self) -> usize {
        self.body_bytes + self.places.len() * size_of::<Option<Script>>() + self.len() * 80
    }

    fn handle(&self, index: usize) -> Option<ScriptHandle> {
        let script = self.places.get(index)?.as_ref()?;
        Some(ScriptHandle { index, flags: script.flags, sha: script.sha })
    }

    /// Forgets the evaluated script whose last use is longest ago.
    fn evict(&mut self) -> bool {
        let evaluated = self.places.iter().enumerate().filter_map(|(index, script)| {
            let script = script.as_ref()?;
            (script.origin == Origin::Evaluated).then_some((script.used, index))
        });
        let Some((_, index)) = evaluated.min() else { return false };
        let Some(script) = self.places[index].take() else { return false };
        self.by_sha.remove(&script.sha);
        self.by_body.remove(&script.body);
        self.body_bytes -= script.body.len();
        self.free.push(index);
        self.evaluated -= 1;
        self.evicted += 1;
        true
    }
}
