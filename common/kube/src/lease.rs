//! Leader election by a Lease, with compare-and-swap only.
//!
//! Leadership is an optimisation: every write of the controller is safe with two
//! leaders alive. The lease keeps them from doing the work twice. The expiry of
//! another's lease is measured by this process's own clock since the record was
//! last seen to change, so clocks need not agree.
//!
//! It is ours because the crates that exist take an expired lease without a check of
//! its resourceVersion, or judge its expiry by the wall clock.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::ObjectMeta};
use tokio_util::sync::CancellationToken;

use crate::write::post;

/// The three times of an election, as client-go has them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A holder that did not renew for this long has lost the lease.
    pub duration: Duration,
    /// A holder that could not renew for this long gives up by itself; shorter
    /// than `duration`, so that it stops before another starts.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What to do about the lease now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody holds it, or the holder's time is over: take it.
    Acquire,
    /// It is ours: renew it.
    Renew,
    /// It is another's for at most this long.
    Wait(Duration),
}

/// Decides about a lease whose record was first seen as it is now at `observed`.
pub fn evaluate(spec: &LeaseSpec, me: &str, observed: Instant, now: Instant) -> Verdict {
    match spec.holder_identity.as_deref() {
        None | Some("") => Verdict::Acquire,
        Some(holder) if holder == me => Verdict::Renew,
        Some(_) => {
            let seconds = spec.lease_duration_seconds.unwrap_or(0).max(0);
            let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            match (observed + duration).checked_duration_since(now) {
                Some(rest) if !rest.is_zero() => Verdict::Wait(rest),
                _ => Verdict::Acquire,
            }
        }
    }
}

/// The record after we take or renew the lease.
fn held(old: &LeaseSpec, me: &str, timing: Timing, now: Timestamp) -> LeaseSpec {
    let renewed = old.holder_identity.as_deref() == Some(me);
    let transitions = old.lease_transitions.unwrap_or(0);
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(timing.duration.as_secs()).ok(),
        acquire_time: if renewed {
            old.acquire_time.clone()
        } else {
            Some(MicroTime(now))
        },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if renewed {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..old.clone()
    }
}

/// The lease could not be kept: another may lead from now on, so stop at once.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Another replica holds the lease.
    #[error("the lease {lease} was taken by {holder}")]
    Taken {
        /// Name of the lease.
        lease: String,
        /// Who has it now.
        holder: String,
    },
    /// No renewal got through in time.
    #[error("the lease {lease} could not be renewed for {seconds} s")]
    Expired {
        /// Name of the lease.
        lease: String,
        /// How long.
        seconds: u64,
    },
}

/// A candidate for the lease, and its holder once [`Election::acquire`] returns.
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    manager: &'static str,
    timing: Timing,
    seen: Option<(Lease, Instant)>,
}

impl Election {
    /// A candidate named `me` for the lease `name`, which it writes as `manager`.
    ///
    /// The client must not retry by itself: a write that lands minutes late would
    /// renew a lease that is no longer ours to renew.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        me: &str,
        manager: &'static str,
        timing: Timing,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: me.to_owned(),
            manager,
            timing,
            seen: None,
        }
    }

    /// Waits until the lease is ours; false when stopped before.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        let mut told = None;
        loop {
            let pause = match self.try_once().await {
                Ok(Verdict::Wait(rest)) => {
                    let holder = self.holder();
                    if told != holder {
                        tracing::info!(lease = %self.name, holder = ?holder, "another replica leads; standing by");
                        told = holder;
                    }
                    rest.min(self.timing.retry)
                }
                Ok(_) => return true,
                Err(error) => {
                    tracing::warn!(lease = %self.name, %error, "lease not acquired");
                    self.timing.retry
                }
            };
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Renews until the lease is lost. Never returns otherwise.
    pub async fn keep(&mut self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.timing.retry).await;
            // The holder's time counts from before the request was sent.
            let started = Instant::now();
            match self.try_once().await {
                Ok(Verdict::Wait(_)) => {
                    return Lost::Taken {
                        lease: self.name.clone(),
                        holder: self.holder().unwrap_or_default(),
                    };
                }
                Ok(_) => renewed = started,
                Err(error) => tracing::warn!(lease = %self.name, %error, "lease not renewed"),
            }
            if renewed.elapsed() >= self.timing.renew_deadline {
                return Lost::Expired {
                    lease: self.name.clone(),
                    seconds: renewed.elapsed().as_secs(),
                };
            }
        }
    }

    /// Gives the lease up, so that another need not wait for it to expire.
    pub async fn release(&mut self) {
        let Some((mut lease, _)) = self.seen.take() else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.me) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let params = post(self.manager);
        let write = self.api.replace(&self.name, &params, &lease);
        match tokio::time::timeout(self.timing.retry, write).await {
            Ok(Ok(_)) => tracing::info!(lease = %self.name, "lease released"),
            _ => tracing::warn!(lease = %self.name, "lease not released; it will expire"),
        }
    }

    fn holder(&self) -> Option<String> {
        let (lease, _) = self.seen.as_ref()?;
        lease.spec.as_ref()?.holder_identity.clone()
    }

    /// One round: read, decide, and swap if the record is still as read.
    async fn try_once(&mut self) -> Result<Verdict, String> {
        let round = async {
            let Some(lease) = self.api.get_opt(&self.name).await? else {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(held(
                        &LeaseSpec::default(),
                        &self.me,
                        self.timing,
                        Timestamp::now(),
                    )),
                };
                let made = self.api.create(&post(self.manager), &lease).await?;
                return Ok((made, Verdict::Acquire));
            };
            let observed = match &self.seen {
                Some((seen, at)) if seen.metadata == lease.metadata => *at,
                _ => Instant::now(),
            };
            self.seen = Some((lease.clone(), observed));
            let spec = lease.spec.clone().unwrap_or_default();
            let verdict = evaluate(&spec, &self.me, observed, Instant::now());
            if let Verdict::Wait(_) = verdict {
                return Ok((lease, verdict));
            }
            let mut next = lease;
            next.spec = Some(held(&spec, &self.me, self.timing, Timestamp::now()));
            // The resourceVersion in `next` makes this a compare-and-swap.
            let written = self
                .api
                .replace(&self.name, &post(self.manager), &next)
                .await?;
            Ok((written, verdict))
        };
        match tokio::time::timeout(self.timing.renew_deadline / 2, round).await {
            Ok(Ok((lease, verdict))) => {
                if !matches!(verdict, Verdict::Wait(_)) {
                    self.seen = Some((lease, Instant::now()));
                }
                Ok(verdict)
            }
            Ok(Err(error)) => Err(kube::Error::to_string(&error)),
            Err(_) => Err("no answer from the API server".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: Option<&str>, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn another_holder_is_left_alone_until_its_time_is_over() {
        let seen = Instant::now();
        let at = |seconds| seen + Duration::from_secs(seconds);
        for (holder, now, verdict) in [
            (None, at(0), Verdict::Acquire),
            (Some(""), at(0), Verdict::Acquire),
            (Some("me"), at(99), Verdict::Renew),
            (Some("other"), at(0), Verdict::Wait(Duration::from_secs(15))),
            (Some("other"), at(14), Verdict::Wait(Duration::from_secs(1))),
            (Some("other"), at(15), Verdict::Acquire),
            (Some("other"), at(16), Verdict::Acquire),
        ] {
            assert_eq!(evaluate(&spec(holder, 15), "me", seen, now), verdict);
        }
        // A record without a duration protects nobody.
        assert_eq!(
            evaluate(&spec(Some("other"), -1), "me", seen, seen),
            Verdict::Acquire
        );
    }

    #[test]
    fn only_a_change_of_holder_is_a_transition() {
        let now = Timestamp::UNIX_EPOCH;
        let taken = held(&spec(Some("other"), 15), "me", Timing::default(), now);
        assert_eq!(taken.lease_transitions, Some(4));
        assert_eq!(taken.acquire_time, Some(MicroTime(now)));
        let kept = held(&taken, "me", Timing::default(), Timestamp::MAX);
        assert_eq!(kept.lease_transitions, Some(4));
        assert_eq!(kept.acquire_time, Some(MicroTime(now)));
        assert_eq!(kept.renew_time, Some(MicroTime(Timestamp::MAX)));
    }
}
