//! Lists in pages. A token names the last entry of the page before, so it stays
//! right while entries come and go, and over a restart. Pure.

use berth_model::names::is_id;
use tonic::Status;

/// What a token starts with.
const AFTER: &str = "after:";

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub(super) entries: Vec<T>,
    /// Where the next page starts; empty after the last one.
    pub(super) next_token: String,
}

/// The page of at most `max_entries` (0: all) that starts at a token.
///
/// The error is ABORTED for a token that is none: the caller starts anew.
pub(super) fn page<T>(
    mut all: Vec<T>,
    id: impl Fn(&T) -> &str,
    max_entries: i32,
    starting_token: &str,
) -> Result<Page<T>, Status> {
    let most = usize::try_from(max_entries).map_err(|_| {
        Status::invalid_argument(format!(
            "max_entries is {max_entries}: must not be negative; 0 asks for everything"
        ))
    })?;
    let after = match (starting_token, starting_token.strip_prefix(AFTER)) {
        ("", _) => None,
        (_, Some(after)) if is_id(after) => Some(after),
        _ => {
            return Err(Status::aborted(format!(
                "starting_token {starting_token:?} is not one that a list ended with; list from the start"
            )));
        }
    };
    all.sort_by(|a, b| id(a).cmp(id(b)));
    if let Some(after) = after {
        let seen = all.partition_point(|entry| id(entry) <= after);
        all.drain(..seen);
    }
    let mut next_token = String::new();
    if most != 0 && all.len() > most {
        all.truncate(most);
        if let Some(last) = all.last() {
            next_token = format!("{AFTER}{}", id(last));
        }
    }
    Ok(Page {
        entries: all,
        next_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn get(all: &[&str], most: i32, token: &str) -> (Vec<String>, String) {
        let page = page(ids(all), |id| id, most, token).expect("a page");
        (page.entries, page.next_token)
    }

    #[test]
    fn pages_follow_one_another() {
        let all = ["c", "a", "e", "b", "d"];
        assert_eq!(
            get(&all, 0, ""),
            (ids(&["a", "b", "c", "d", "e"]), "".into())
        );
        assert_eq!(get(&all, 2, ""), (ids(&["a", "b"]), "after:b".into()));
        assert_eq!(
            get(&all, 2, "after:b"),
            (ids(&["c", "d"]), "after:d".into())
        );
        assert_eq!(get(&all, 2, "after:d"), (ids(&["e"]), "".into()));
        assert_eq!(
            get(&all, 5, ""),
            (ids(&["a", "b", "c", "d", "e"]), "".into())
        );
        assert_eq!(get(&all, 0, "after:e"), (ids(&[]), "".into()));
    }

    #[test]
    fn the_last_entry_of_a_page_may_go() {
        assert_eq!(
            get(&["a", "c", "d"], 1, "after:b"),
            (ids(&["c"]), "after:c".into())
        );
    }

    #[test]
    fn other_tokens_and_numbers_are_refused() {
        for (most, token, code) in [
            (0, "invalid-token", tonic::Code::Aborted),
            (0, "after:", tonic::Code::Aborted),
            (0, "after:../x", tonic::Code::Aborted),
            (0, "3", tonic::Code::Aborted),
            (-1, "", tonic::Code::InvalidArgument),
        ] {
            let refused = page(ids(&["a"]), |id| id, most, token).expect_err("refused");
            assert_eq!(refused.code(), code, "{token:?}");
        }
    }
}
