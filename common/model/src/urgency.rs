//! How soon a change is to be written: the planner and the agent say it, the throttle
//! of status writes obeys it.

/// How soon others need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Figures for people, which nothing waits for: one second after the first
    /// change, so that what belongs together is written together, then every two
    /// seconds, and at last every 15.
    Later,
    /// Something may wait for it, such as room that became free: at once, then
    /// every 250 ms, and at last every second.
    Soon,
    /// Health, a conflict, a refusal: never held back.
    Now,
}
