//! A reactor's connections, each at a place that also says which use of the place is meant.
//!
//! An event may still be on its way for a connection that is gone, and the place may have a new
//! tenant: a token carries the generation of its place, so such an event finds nothing.

use mio::Token;

pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    len: usize,
}

struct Place<T> {
    generation: u32,
    tenant: Option<T>,
}

/// Generations stay below this, so that tokens above are free for other uses.
const GENERATIONS: u32 = 1 << 31;

impl<T> Slab<T> {
    pub fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn insert(&mut self, tenant: T) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, tenant: None });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.tenant = Some(tenant);
        self.len += 1;
        token(index, place.generation)
    }

    pub fn get(&self, token: Token) -> Option<&T> {
        let place = self.places.get(index(token))?;
        (place.generation == generation(token)).then_some(place.tenant.as_ref()).flatten()
    }

    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let place = self.places.get_mut(index(token))?;
        if place.generation != generation(token) {
            return None;
        }
        place.tenant.as_mut()
    }

    pub fn remove(&mut self, token: Token) -> Option<T> {
        let place = self.places.get_mut(index(token))?;
        if place.generation != generation(token) {
            return None;
        }
        let tenant = place.tenant.take()?;
        place.generation = (place.generation + 1) % GENERATIONS;
        self.free.push(index(token) as u32);
        self.len -= 1;
        Some(tenant)
    }

    /// Takes a tenant out for a while; its place is kept for it.
    pub fn lend(&mut self, token: Token) -> Option<T> {
        let place = self.places.get_mut(index(token))?;
        if place.generation != generation(token) {
            return None;
        }
        place.tenant.take()
    }

    /// Takes back what was lent under this token.
    pub fn give_back(&mut self, token: Token, tenant: T) {
        if let Some(place) = self.places.get_mut(index(token)) {
            place.tenant = Some(tenant);
        }
    }

    /// The token of the tenant at or after `cursor`, and the cursor behind it; none at the end.
    pub fn next(&self, cursor: usize) -> Option<(Token, usize)> {
        let found = self.places.get(cursor..)?.iter().position(|place| place.tenant.is_some())?;
        let at = cursor + found;
        Some((token(at as u32, self.places[at].generation), at + 1))
    }

    /// All present tokens.
    pub fn tokens(&self) -> Vec<Token> {
        let mut tokens = Vec::with_capacity(self.len);
        let mut cursor = 0;
        while let Some((token, next)) = self.next(cursor) {
            tokens.push(token);
            cursor = next;
        }
        tokens
    }
}

fn token(index: u32, generation: u32) -> Token {
    Token(((u64::from(generation) << 32) | u64::from(index)) as usize)
}

fn index(token: Token) -> usize {
    token.0 & u32::MAX as usize
}

fn generation(token: Token) -> u32 {
    (token.0 as u64 >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_token_does_not_find_the_new_tenant() {
        let mut slab = Slab::new();
        let first = slab.insert("a");
        let second = slab.insert("b");
        assert_eq!(slab.remove(first), Some("a"));
        let third = slab.insert("c");
        assert_ne!(first, third);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(third), Some(&mut "c"));
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.tokens(), [third, second]);
        assert_eq!(slab.next(2), None);
        assert_eq!(slab.next(99), None);
        assert_eq!(slab.lend(third), Some("c"));
        assert_eq!(slab.get_mut(third), None);
        assert_eq!(slab.lend(third), None);
        assert_eq!(slab.remove(third), None);
        assert_ne!(slab.insert("d"), third, "the place is kept");
        slab.give_back(third, "c");
        assert_eq!(slab.get_mut(third), Some(&mut "c"));
    }
}
