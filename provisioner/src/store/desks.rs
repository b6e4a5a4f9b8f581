//! What each directory's worker is asked, and what it answered last. Nobody waits here
//! for a disk: whoever needs to know how a pool is reads the last answer, and a worker
//! that lets a question wait for too long has a silent disk. No I/O happens while the
//! desks are locked.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::locks::lock;
use crate::types::PoolReport;

/// How long a question may wait for its answer before the disk counts as silent.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);

/// Whether a disk is silent, given for how long the oldest question has been waiting.
/// Nothing is silent that was not asked.
pub(crate) fn is_silent(waiting: Option<Duration>) -> bool {
    waiting.is_some_and(|waiting| waiting >= SILENCE)
}

/// What is known of a directory without asking its disk.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    /// Name of the directory under `pools/`.
    pub(crate) dir: String,
    /// The last answer, if there was one.
    pub(crate) report: Option<PoolReport>,
    /// Whether the disk is silent.
    pub(crate) silent: bool,
}

/// Something to do for the worker of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Questions so far; one look answers all of them.
    count: u64,
    /// Whether a mount point may become a pool.
    pub(crate) create: bool,
}

/// Which desk a thread works at: a directory that went away and came back has another.
pub(crate) type DeskId = u64;

/// One desk for each directory under `pools/`.
#[derive(Debug, Default)]
pub(crate) struct Desks {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    desks: BTreeMap<String, Desk>,
    made: DeskId,
    stopped: bool,
    /// Threads that have not ended yet.
    threads: usize,
}

#[derive(Debug, Default)]
struct Desk {
    id: DeskId,
    asked: u64,
    answered: u64,
    create: bool,
    /// Since when the oldest question waits.
    since: Option<Instant>,
    answer: Option<PoolReport>,
}

impl Desk {
    fn is_silent(&self, now: Instant) -> bool {
        is_silent(self.since.map(|since| now.saturating_duration_since(since)))
    }

    fn is_waiting(&self) -> bool {
        self.answered < self.asked
    }

    fn ask(&mut self, create: bool) {
        self.asked += 1;
        self.create |= create;
        self.since.get_or_insert_with(Instant::now);
    }
}

impl Desks {
    /// Has exactly these directories, and asks the worker of each. Returns those that are
    /// new, which need a worker.
    pub(crate) fn ask_all(&self, dirs: &[String], create: bool) -> Vec<(String, DeskId)> {
        let mut table = lock(&self.table);
        table.desks.retain(|dir, _| dirs.contains(dir));
        let mut new = Vec::new();
        for dir in dirs {
            if !table.desks.contains_key(dir) {
                table.made += 1;
                let id = table.made;
                let desk = Desk {
                    id,
                    ..Desk::default()
                };
                table.desks.insert(dir.clone(), desk);
                new.push((dir.clone(), id));
            }
            if let Some(desk) = table.desks.get_mut(dir) {
                desk.ask(create);
            }
        }
        self.changed.notify_all();
        new
    }

    /// Asks the worker of one directory, if it has one.
    pub(crate) fn ask(&self, dir: &str) {
        if let Some(desk) = lock(&self.table).desks.get_mut(dir) {
            desk.ask(false);
        }
        self.changed.notify_all();
    }

    /// Waits until the workers of these directories have answered, except those whose
    /// disks are silent, for at most `patience`.
    pub(crate) fn wait(&self, dirs: impl Fn(&str) -> bool, patience: Duration) {
        let end = Instant::now() + patience.min(SILENCE);
        let mut table = lock(&self.table);
        loop {
            let now = Instant::now();
            let waits = table
                .desks
                .iter()
                .any(|(dir, desk)| dirs(dir) && desk.is_waiting() && !desk.is_silent(now));
            let Some(left) = end.checked_duration_since(now).filter(|_| waits) else {
                return;
            };
            if table.stopped {
                return;
            }
            table = self
                .changed
                .wait_timeout(table, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until every directory before this one in the order of names has answered
    /// once; those that have not by `end` are passed over.
    pub(crate) fn wait_for_earlier(&self, dir: &str, end: Instant) {
        let mut table = lock(&self.table);
        while !table.stopped
            && table
                .desks
                .iter()
                .take_while(|(earlier, _)| earlier.as_str() < dir)
                .any(|(_, desk)| desk.answered == 0)
            && let Some(left) = end.checked_duration_since(Instant::now())
        {
            table = self
                .changed
                .wait_timeout(table, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The next question for the worker at a desk, which waits for it; `None` when it is
    /// to end.
    pub(crate) fn next(&self, dir: &str, id: DeskId) -> Option<Question> {
        let mut table = lock(&self.table);
        loop {
            if table.stopped {
                return None;
            }
            let desk = table.desks.get_mut(dir).filter(|desk| desk.id == id)?;
            if desk.is_waiting() {
                return Some(Question {
                    count: desk.asked,
                    create: std::mem::take(&mut desk.create),
                });
            }
            table = self
                .changed
                .wait(table)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Answers a question, and all before it.
    pub(crate) fn answer(&self, dir: &str, id: DeskId, question: Question, report: PoolReport) {
        let mut table = lock(&self.table);
        if let Some(desk) = table.desks.get_mut(dir).filter(|desk| desk.id == id) {
            let now = Instant::now();
            desk.answered = question.count;
            // Whoever asked meanwhile asks a disk that has just answered.
            desk.since = desk.is_waiting().then_some(now);
            desk.answer = Some(report);
        }
        drop(table);
        self.changed.notify_all();
    }

    /// Whether a directory's disk is silent.
    pub(crate) fn is_silent(&self, dir: &str) -> bool {
        let table = lock(&self.table);
        let desk = table.desks.get(dir);
        desk.is_some_and(|desk| desk.is_silent(Instant::now()))
    }

    /// Directories that have never answered.
    pub(crate) fn unopened(&self) -> Vec<String> {
        let table = lock(&self.table);
        let unopened = table.desks.iter().filter(|(_, desk)| desk.answered == 0);
        unopened.map(|(dir, _)| dir.clone()).collect()
    }

    /// All pictures, in the order of the directories' names.
    pub(crate) fn pictures(&self) -> Vec<Picture> {
        let now = Instant::now();
        let table = lock(&self.table);
        table
            .desks
            .iter()
            .map(|(dir, desk)| Picture {
                dir: dir.clone(),
                report: desk.answer.clone(),
                silent: desk.is_silent(now),
            })
            .collect()
    }

    /// Whether the thread at a desk is to end.
    pub(crate) fn has_ended(&self, dir: &str, id: DeskId) -> bool {
        let table = lock(&self.table);
        table.stopped || table.desks.get(dir).is_none_or(|desk| desk.id != id)
    }

    /// Counts a thread that is about to start.
    pub(crate) fn starts(&self) {
        lock(&self.table).threads += 1;
    }

    /// Counts a thread that ends.
    pub(crate) fn ends(&self) {
        lock(&self.table).threads -= 1;
        self.changed.notify_all();
    }

    /// Asks all threads to end, and waits for those that can, for at most `patience`: one
    /// that waits for its disk cannot be ended by anybody.
    pub(crate) fn stop(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut table = lock(&self.table);
        table.stopped = true;
        self.changed.notify_all();
        while table.threads > 0 {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return false;
            };
            table = self
                .changed
                .wait_timeout(table, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_silent_when_a_question_waits_too_long() {
        for (waiting, silent) in [
            (None, false),
            (Some(Duration::ZERO), false),
            (Some(SILENCE - Duration::from_millis(1)), false),
            (Some(SILENCE), true),
            (Some(Duration::from_secs(86_400)), true),
        ] {
            assert_eq!(is_silent(waiting), silent, "{waiting:?}");
        }
    }

    #[test]
    fn a_desk_belongs_to_one_thread_and_goes_with_its_directory() {
        let desks = Desks::default();
        let dirs = ["a".to_owned(), "b".to_owned()];
        let new = desks.ask_all(&dirs, false);
        assert_eq!(new, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert!(desks.ask_all(&dirs, true).is_empty());
        let question = desks.next("a", 1).unwrap();
        assert!(question.create);
        assert_eq!(desks.unopened(), ["a", "b"]);
        // The directory goes, and another of its name comes: the thread is of no more use.
        desks.ask_all(&dirs[1..], false);
        assert_eq!(desks.next("a", 1), None);
        assert_eq!(desks.ask_all(&dirs, false), [("a".to_owned(), 3)]);
        assert!(desks.has_ended("a", 1) && !desks.has_ended("a", 3));
        assert!(desks.stop(Duration::ZERO), "no thread was counted");
        assert_eq!(desks.next("a", 3), None);
    }
}
