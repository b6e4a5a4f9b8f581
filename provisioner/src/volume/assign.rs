//! Gives a volume to another claim: its record and its by-claim link tell the new name.
//! The data is not touched, and may be in use.

use crate::error::Error;
use crate::locks::lock;
use crate::names;
use crate::pool::Pool;
use crate::pool::record::VolumeRecord;
use crate::store::{Entry, Store};
use crate::types::{ClaimRef, SetRef};
use crate::volume::{by_claim, grow};

/// Writes the claim, and the set behind it, into the volume's record. The claim that it
/// has already changes nothing.
pub(crate) fn assign(
    store: &Store,
    pool: &Pool,
    record: VolumeRecord,
    claim: ClaimRef,
    set: Option<SetRef>,
) -> Result<(), Error> {
    names::dns_label("namespace", &claim.namespace)?;
    names::dns_subdomain("claim", &claim.name)?;
    let before = record.clone();
    let record = VolumeRecord {
        claim: Some(claim),
        set,
        ..record
    };
    if record == before {
        by_claim::link(store, &pool.name, &record);
        return Ok(());
    }
    grow::write_record(pool, &record)?;
    if let Some(state) = lock(&store.state).pools.get_mut(&pool.identity.id) {
        let entry = Entry::Intact(Box::new(record.clone()));
        state.volumes.insert(record.id.clone(), entry);
    }
    // The old name first: it may be another volume's soon.
    by_claim::unlink(store, &pool.name, &before);
    by_claim::link(store, &pool.name, &record);
    let (claim, was) = (&record.claim, &before.claim);
    tracing::info!(
        volume = record.id,
        ?claim,
        ?was,
        "volume given to another claim"
    );
    Ok(())
}
