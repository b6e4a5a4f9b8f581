//! How far the pods are, counted from what a watch shows of them and not from what a
//! controller says.

use std::collections::BTreeMap;

/// One pod, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its condition Ready is true and it is not being deleted.
    pub ready: bool,
    /// Which template it was made from: the value of the template's annotation.
    pub round: String,
}

/// All pods.
#[derive(Clone, Debug)]
pub struct Tally {
    wanted: usize,
    round: String,
    pods: BTreeMap<String, Seen>,
    ready: usize,
    done: usize,
    /// The smallest number of ready pods since [`Tally::aim`].
    lowest: usize,
}

impl Tally {
    /// Nothing seen, and nothing wanted.
    pub fn new() -> Self {
        Self {
            wanted: 0,
            round: String::new(),
            pods: BTreeMap::new(),
            ready: 0,
            done: 0,
            lowest: 0,
        }
    }

    /// From now on `wanted` pods of this template are to become ready.
    pub fn aim(&mut self, wanted: usize, round: &str) {
        self.wanted = wanted;
        round.clone_into(&mut self.round);
        self.done = (self.pods.values())
            .filter(|pod| pod.ready && pod.round == self.round)
            .count();
        self.lowest = self.ready;
    }

    /// A pod is as it is now; `None`: gone.
    pub fn note(&mut self, name: &str, now: Option<Seen>) {
        let before = match now.clone() {
            Some(seen) => self.pods.insert(name.to_owned(), seen),
            None => self.pods.remove(name),
        };
        for (seen, sign) in [(before, -1), (now, 1)] {
            let Some(seen) = seen.filter(|seen| seen.ready) else {
                continue;
            };
            self.ready = self.ready.saturating_add_signed(sign);
            if seen.round == self.round {
                self.done = self.done.saturating_add_signed(sign);
            }
        }
        self.lowest = self.lowest.min(self.ready);
    }

    /// Pods that are ready and of the template that is aimed at.
    pub fn done(&self) -> usize {
        self.done
    }

    /// All of them are, and there is no other pod.
    pub fn is_complete(&self) -> bool {
        self.done == self.wanted && self.pods.len() == self.wanted
    }

    /// The most pods that were missing or not ready at one moment since [`Tally::aim`].
    pub fn most_down(&self) -> usize {
        self.wanted.saturating_sub(self.lowest)
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: bool, round: &str) -> Option<Seen> {
        Some(Seen {
            ready,
            round: round.to_owned(),
        })
    }

    #[test]
    fn a_rollout_is_complete_when_every_pod_is_new_and_ready() {
        let mut tally = Tally::new();
        tally.aim(2, "1");
        tally.note("a", pod(false, "1"));
        tally.note("a", pod(true, "1"));
        assert!(!tally.is_complete());
        tally.note("b", pod(true, "1"));
        assert!(tally.is_complete());
        tally.aim(2, "2");
        assert_eq!((tally.done(), tally.most_down()), (0, 0));
        tally.note("b", pod(false, "1"));
        tally.note("a", pod(false, "1"));
        tally.note("b", None);
        tally.note("b", pod(true, "2"));
        tally.note("a", pod(true, "1"));
        assert_eq!((tally.done(), tally.is_complete()), (1, false));
        tally.note("a", None);
        tally.note("a", pod(true, "2"));
        assert!(tally.is_complete());
        assert_eq!(tally.most_down(), 2);
    }
}
