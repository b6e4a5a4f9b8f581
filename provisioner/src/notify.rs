//! How the thread that empties the trash is woken and stopped.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::locks::lock;

/// Wakes the remover when there is work, or when it is to stop.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    messages: Mutex<Messages>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Messages {
    stop: bool,
    /// How often there was something to look at.
    count: u64,
}

impl Notify {
    /// Announces that there is work, or that some was done.
    pub(crate) fn notify(&self) {
        lock(&self.messages).count += 1;
        self.changed.notify_all();
    }

    /// Asks for no more work to be done.
    pub(crate) fn stop(&self) {
        lock(&self.messages).stop = true;
        self.changed.notify_all();
    }

    /// Whether it was asked to stop.
    pub(crate) fn stopped(&self) -> bool {
        lock(&self.messages).stop
    }

    /// Notifications so far.
    pub(crate) fn count(&self) -> u64 {
        lock(&self.messages).count
    }

    /// Waits for a notification after the `seen`th, for at most `pause`.
    pub(crate) fn wait(&self, seen: u64, pause: Option<Duration>) {
        let messages = lock(&self.messages);
        let idle = |messages: &mut Messages| !messages.stop && messages.count == seen;
        match pause {
            Some(pause) => drop(self.changed.wait_timeout_while(messages, pause, idle)),
            None => drop(self.changed.wait_while(messages, idle)),
        }
    }
}
