//! A value that others wait for, whose waiters go on in the order in which they began to wait.
//!
//! Tokio's own `watch` wakes those that wait at the same time in an order by chance, which no seed of a simulation
//! has in its hand; here nothing is by chance.

use parking_lot::Mutex;
use tokio::sync::Notify;

pub struct Signal<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy> Signal<T> {
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub fn now(&self) -> T {
        *self.value.lock()
    }

    pub fn set(&self, value: T) {
        *self.value.lock() = value;
        self.changed.notify_waiters();
    }

    /// Waits until the value is as it has to be. What comes and goes meanwhile may be missed.
    pub async fn wait_for(&self, is_so: impl Fn(T) -> bool) {
        loop {
            // Told of every change from here on, also of one between the look and the wait.
            let changed = self.changed.notified();
            if is_so(self.now()) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_go_on_in_their_order() {
        let signal = Arc::new(Signal::new(0));
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..20)
            .map(|number| {
                let (signal, order) = (Arc::clone(&signal), Arc::clone(&order));
                tokio::spawn(async move {
                    signal.wait_for(|value| value >= 2).await;
                    order.lock().push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        for value in [1, 3] {
            signal.set(value);
            tokio::task::yield_now().await;
        }
        for waiting in waiting {
            waiting.await.unwrap();
        }
        assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
        signal.wait_for(|value| value == 3).await;
    }
}
