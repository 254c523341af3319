//! Lists in pages.
//! Owns: cursors, limits, the page envelope and the bare-array form of every list.
//! May touch: a checked query.
//! Never: holds a list in memory beyond one page.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::api::query::{Query, QueryKind, QueryParam};
pub use crate::core::Order;
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::limits::{LIST_BARE_ITEMS_MAX, PAGE_CURSOR_BYTES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};

/// Asks for the envelope form.
pub const PAGE: QueryParam = QueryParam {
    name: "page",
    kind: QueryKind::Flag,
    summary: "true: answer with the page envelope {items, pagination} instead of a bare array.",
};
/// Bounds the number of items.
pub const LIMIT: QueryParam = QueryParam {
    name: "limit",
    kind: QueryKind::Limit,
    summary: "Items wanted; larger values are clamped (100 in a page, 1000 in a bare array).",
};
/// Continues after an earlier page.
pub const CURSOR: QueryParam = QueryParam {
    name: "cursor",
    kind: QueryKind::PageCursor,
    summary: "The next_cursor of the page before; implies page=true.",
};
/// Turns the sort order around.
pub const ORDER: QueryParam =
    QueryParam { name: "order", kind: QueryKind::Order, summary: "asc or desc; asc when left out." };

/// What a caller wants of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Whether the answer is the envelope; otherwise it is a bare array.
    pub envelope: bool,
    /// Items to return, already clamped.
    pub limit: usize,
    /// Whether the caller chose the limit.
    pub limit_given: bool,
    /// Sort key of the last item of the page before.
    pub after: Option<String>,
    /// Direction.
    pub order: Order,
}

impl PageRequest {
    /// Reads [`PAGE`], [`LIMIT`], [`CURSOR`] and [`ORDER`], whichever the route takes.
    ///
    /// # Errors
    /// `invalid_order` when `order` is given without a page, where it would change nothing.
    pub fn read(query: &Query) -> Result<Self, Problem> {
        let after = query.text(CURSOR.name).and_then(decode_cursor);
        let envelope = after.is_some() || query.flag(PAGE.name);
        let order = match query.text(ORDER.name) {
            Some(_) if !envelope => {
                return Err(Problem::new(&codes::INVALID_ORDER, "order needs page=true or a cursor"));
            }
            Some("desc") => Order::Descending,
            _ => Order::Ascending,
        };
        let (default, max) =
            if envelope { (PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX) } else { (LIST_BARE_ITEMS_MAX, LIST_BARE_ITEMS_MAX) };
        let given = query.unsigned(LIMIT.name);
        let limit = given.map_or(default, |limit| usize::try_from(limit).unwrap_or(max).min(max));
        Ok(Self { envelope, limit, limit_given: given.is_some(), after, order })
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// At most `limit` items.
    pub items: Vec<T>,
    /// Items of the whole list.
    pub total_count: u64,
    /// Sort key of the last item when more follow.
    pub next: Option<String>,
    /// The order's published name, as `submitted_at_ms_asc,run_id_asc`.
    pub order: &'static str,
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    items: &'a [T],
    pagination: Pagination<'a>,
}

#[derive(Serialize)]
struct Pagination<'a> {
    limit: usize,
    total_count: u64,
    has_more: bool,
    order: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl<T: Serialize> Page<T> {
    /// The 200 answer in the form that `request` asked for. A bare array carries the total in `x-total-count`.
    pub fn answer(&self, request: &PageRequest) -> Response {
        if !request.envelope {
            return Response::json(200, &self.items).with_header("x-total-count", self.total_count.to_string());
        }
        let pagination = Pagination {
            limit: request.limit,
            total_count: self.total_count,
            has_more: self.next.is_some(),
            order: self.order,
            next_cursor: self.next.as_deref().map(encode_cursor),
        };
        Response::json(200, &Envelope { items: &self.items, pagination })
    }
}

/// The opaque form of a sort key.
pub fn encode_cursor(sort_key: &str) -> String {
    URL_SAFE_NO_PAD.encode(sort_key)
}

/// The sort key of a cursor, if `raw` is one: canonical base64url without padding, UTF-8, bounded.
pub fn decode_cursor(raw: &str) -> Option<String> {
    if raw.is_empty() || raw.len() > PAGE_CURSOR_BYTES_MAX {
        return None;
    }
    let key = String::from_utf8(URL_SAFE_NO_PAD.decode(raw).ok()?).ok()?;
    (!key.contains(char::is_control)).then_some(key)
}

/// The sort key of a list ordered by time and then id: 20 digits, `:`, id.
pub fn time_key(at_ms: u64, id: &impl std::fmt::Display) -> String {
    format!("{at_ms:020}:{id}")
}

/// Reads a [`time_key`] back; the id is returned unjudged.
///
/// # Errors
/// 400 `invalid_cursor`: the key came from another list, or from nowhere.
pub fn split_time_key(key: &str) -> Result<(u64, &str), Problem> {
    key.split_once(':')
        .filter(|(digits, id)| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) && !id.is_empty())
        .and_then(|(digits, id)| Some((digits.parse().ok()?, id)))
        .ok_or_else(foreign_cursor)
}

/// The refusal of a cursor that decodes but does not belong to the list.
pub fn foreign_cursor() -> Problem {
    Problem::new(&codes::INVALID_CURSOR, "the cursor was not issued by this list; start again without a cursor")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: &[QueryParam] = &[PAGE, LIMIT, CURSOR, ORDER];

    fn request(raw: &str) -> Result<PageRequest, Problem> {
        PageRequest::read(&Query::read(Some(raw), PARAMS)?)
    }

    #[test]
    fn limits_are_clamped_and_paging_is_opt_in() {
        let bare =
            PageRequest { envelope: false, limit: 1_000, limit_given: false, after: None, order: Order::Ascending };
        assert_eq!(request("").unwrap(), bare);
        assert_eq!(request("limit=20").unwrap(), PageRequest { limit: 20, limit_given: true, ..bare.clone() });
        assert_eq!(request("limit=5000").unwrap(), PageRequest { limit: 1_000, limit_given: true, ..bare.clone() });
        let page = PageRequest { envelope: true, limit: 50, ..bare };
        assert_eq!(request("page=true").unwrap(), page);
        assert_eq!(
            request("page=true&limit=18446744073709551615&order=desc").unwrap(),
            PageRequest { limit: 100, limit_given: true, order: Order::Descending, ..page.clone() }
        );
        let cursor = encode_cursor("00000000001760000000:run-7");
        assert_eq!(
            request(&format!("cursor={cursor}")).unwrap(),
            PageRequest { after: Some("00000000001760000000:run-7".to_string()), ..page }
        );
        assert_eq!(request("order=asc").unwrap_err().code.code, "invalid_order");
    }

    #[test]
    fn a_page_is_answered_in_the_form_that_was_asked_for() {
        let page = Page { items: vec![1, 2], total_count: 9, next: Some("k:2".to_string()), order: "id_asc" };
        let answer = page.answer(&request("page=true&limit=2").unwrap());
        assert_eq!(
            String::from_utf8(answer.body).unwrap(),
            r#"{"items":[1,2],"pagination":{"limit":2,"total_count":9,"has_more":true,"order":"id_asc","next_cursor":"azoy"}}"#
        );
        let last = Page { items: Vec::<u8>::new(), total_count: 0, next: None, order: "id_asc" };
        assert_eq!(
            String::from_utf8(last.answer(&request("page=true").unwrap()).body).unwrap(),
            r#"{"items":[],"pagination":{"limit":50,"total_count":0,"has_more":false,"order":"id_asc"}}"#
        );
        let bare = page.answer(&request("").unwrap());
        assert_eq!((bare.status, bare.body), (200, b"[1,2]".to_vec()));
        assert_eq!(bare.headers, vec![("x-total-count", "9".to_string())]);
    }

    #[test]
    fn a_cursor_has_one_spelling_and_decodes_to_its_key() {
        for seed in 1..=20_000u64 {
            let mut random = crate::api::testing::Random::new(seed);
            let key = time_key(random.next() >> random.below(64), &format!("run-{}", 1 + random.below(1_000_000)));
            let cursor = encode_cursor(&key);
            assert_eq!(decode_cursor(&cursor).as_deref(), Some(key.as_str()), "seed {seed}");
            let (at_ms, id) = split_time_key(&key).unwrap();
            assert_eq!(time_key(at_ms, &id), key, "seed {seed}");

            let mut bent = cursor.clone().into_bytes();
            let at = random.below(bent.len());
            bent[at] = b"ABCabc019-_=+/ %\n"[random.below(17)];
            let bent = String::from_utf8(bent).unwrap();
            if let Some(key) = decode_cursor(&bent) {
                assert_eq!(encode_cursor(&key), bent, "seed {seed}: two spellings of one cursor");
            }
        }
        for raw in ["", "=", "YQ==", "a b", "YR", "_w", "AA", &"YWJj".repeat(65)] {
            assert_eq!(decode_cursor(raw), None, "{raw:?}");
        }
        for key in ["", ":", "1:x", "0000000000000000000x:run-1", "00000000000000000001:", "99999999999999999999:x"] {
            assert_eq!(split_time_key(key).unwrap_err().code.code, "invalid_cursor", "{key:?}");
        }
    }
}
