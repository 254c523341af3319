//! Accounts whose tokens end: one refresh for everybody, on disk before anybody uses it, and no token lost.

mod state_root_scratch;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use kheish_daemon::broker::{
    Broker, BrokerError, BrokerHandle, BrokerLog, BrokerParts, ClientAuth, Lease, LeaseRequest, Provider,
    RefreshFailure, RefreshRequest, RefreshedTokens, Revocation, SlotId, SlotRecord, Store, Subject, SubjectId,
    TokenExchange, Use,
};
use kheish_daemon::clock::Clock;
use kheish_daemon::commit::{ActionLedger, CommandError, OwnRequest, OwnResponse};
use kheish_daemon::ids::RunId;
use kheish_daemon::net::{Cancel, Net, NetConfig};
use kheish_daemon::oauth::HttpExchange;
use kheish_daemon::secret::Secret;
use kheish_daemon::state_root::StateRoot;
use kheish_daemon::worker::Worker;
use serde_json::{Value, json};
use state_root_scratch::{KEY, Scratch, id, key};

const SLOT: &str = "mcp.oauth.docs";
const HOUR_MS: u64 = 3_600_000;
const START_MS: u64 = 1_767_225_600_000;

/// The time of a test.
struct Hands(AtomicU64);

impl Hands {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(START_MS)))
    }

    fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn account(token_endpoint: &str, expires_at_ms: Option<u64>) -> SlotRecord {
    let body = json!({
        "slot_id": SLOT, "server_name": "docs", "resource": "https://mcp.example/mcp",
        "issuer": "https://issuer.example", "authorization_endpoint": "https://issuer.example/authorize",
        "token_endpoint": token_endpoint, "client_id": "client-1", "client_secret": null,
        "access_token": "access-token-0", "refresh_token": "refresh-token-0", "expires_at_ms": expires_at_ms,
        "scopes": ["read"]
    });
    SlotRecord::account_from_json(body.to_string().as_bytes(), START_MS).unwrap()
}

fn start(root: &StateRoot, exchange: Arc<dyn TokenExchange>, clock: &Arc<Hands>) -> Broker {
    let (store, log) = (Store::open(root, key(KEY)).unwrap(), BrokerLog::open(root).unwrap());
    Broker::start(BrokerParts { store, log, foreign: Vec::new(), exchange, clock: clock.clone() }).unwrap()
}

fn request() -> LeaseRequest {
    LeaseRequest {
        subject: Subject::alone(SubjectId::mcp("docs")),
        slot: id(SLOT),
        provider: Provider::McpOauth,
        use_for: Use::McpServer { server: "docs".to_string(), scopes_hash: "read".to_string() },
        ttl_ms: 600_000,
    }
}

fn token(handle: &BrokerHandle, lease: &Lease, now_ms: u64) -> Result<String, BrokerError> {
    handle.redeem(lease, now_ms).map(|credential| String::from_utf8(credential.secret.expose().to_vec()).unwrap())
}

fn details(handle: &BrokerHandle) -> Value {
    serde_json::to_value(handle.slot(&id(SLOT)).unwrap().unwrap()).unwrap()["details"].clone()
}

/// Counts the records of exchanges; refuses them while told so.
#[derive(Default)]
struct Ledger {
    requested: AtomicU64,
    responded: AtomicU64,
    refuses: AtomicBool,
}

impl ActionLedger for Ledger {
    fn requested(&self, _run: Option<RunId>, request: &OwnRequest<'_>) -> Result<u64, CommandError> {
        assert_eq!(request.kind, "oauth");
        if self.refuses.load(Ordering::SeqCst) {
            return Err(CommandError::StorageFull { reason: "no space is left".to_string() });
        }
        Ok(self.requested.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn responded(&self, _run: Option<RunId>, response: &OwnResponse<'_>) -> Result<(), CommandError> {
        assert_eq!(response.action, self.responded.fetch_add(1, Ordering::SeqCst) + 1);
        Ok(())
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

/// What the fake server does with the next exchange.
type Answer = Box<dyn Fn(u64, &RefreshRequest) -> Result<RefreshedTokens, RefreshFailure> + Send + Sync>;

/// A server without a network: counts exchanges, refuses a refresh token that is not its newest.
struct Fake {
    calls: AtomicU64,
    seen: Mutex<Vec<String>>,
    answer: Mutex<Answer>,
}

impl Fake {
    fn new(answer: Answer) -> Arc<Self> {
        Arc::new(Self { calls: AtomicU64::new(0), seen: Mutex::default(), answer: Mutex::new(answer) })
    }

    /// Gives numbered tokens that live an hour; the refresh token rotates.
    fn rotating() -> Arc<Self> {
        Self::new(Box::new(|number, request| {
            let presented = String::from_utf8(request.refresh_token.expose().to_vec()).unwrap();
            assert_eq!(presented, format!("refresh-token-{}", number - 1), "every token is used once");
            Ok(tokens(number))
        }))
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn tokens(number: u64) -> RefreshedTokens {
    RefreshedTokens {
        access_token: secret(&format!("access-token-{number}")),
        refresh_token: Some(secret(&format!("refresh-token-{number}"))),
        expires_in_s: Some(3_600),
        scopes: None,
    }
}

fn failing(class: &'static str, is_final: bool) -> Answer {
    Box::new(move |_, _| Err(RefreshFailure { class, reason: "so it said".to_string(), is_final }))
}

impl TokenExchange for Fake {
    fn refresh(&self, request: &RefreshRequest, _cancel: &Cancel) -> Result<RefreshedTokens, RefreshFailure> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.lock().unwrap().push(String::from_utf8(request.refresh_token.expose().to_vec()).unwrap());
        (self.answer.lock().unwrap())(number, request)
    }
}

/// Fifty users at once, over two hundred ends of the token: each end is met with one exchange, at a real server.
#[test]
fn fifty_users_over_two_hundred_expiries_make_exactly_two_hundred_exchanges() {
    const USERS: usize = 50;
    const EXPIRIES: u64 = 200;
    let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
    let address = server.server_addr().to_ip().unwrap();
    let served = Arc::new(AtomicU64::new(0));
    let (serving, count) = (server.clone(), served.clone());
    let server_thread = Worker::spawn("token-server", move || {
        for mut request in serving.incoming_requests() {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let mut body = String::new();
            std::io::Read::read_to_string(request.as_reader(), &mut body).unwrap();
            let expected = format!("refresh_token=refresh-token-{}&", number - 1);
            // A token that was used before is answered as a server answers it that revokes the whole family.
            let (status, answer) =
                match body.contains(&expected) && body.contains("resource=https%3A%2F%2Fmcp.example%2Fmcp") {
                    true => {
                        let answer = json!({"access_token": format!("access-token-{number}"), "token_type": "Bearer",
                                        "refresh_token": format!("refresh-token-{number}"), "expires_in": 3_600});
                        (200, answer)
                    }
                    false => (400, json!({"error": "invalid_grant"})),
                };
            let response = tiny_http::Response::from_string(answer.to_string()).with_status_code(status);
            request.respond(response).unwrap();
        }
    })
    .unwrap();

    let scratch = Scratch::new();
    let (root, clock) = (scratch.open_root(), Hands::new());
    let net = Net::new(&NetConfig { ca_file: None, resolver_threads: 1, ..NetConfig::default() }).unwrap();
    let ledger = Arc::new(Ledger::default());
    let broker = start(&root, Arc::new(HttpExchange::new(net, ledger.clone())), &clock);
    broker.handle().put(account(&format!("http://{address}/token"), Some(START_MS + HOUR_MS))).unwrap();
    let barrier = Arc::new(Barrier::new(USERS + 1));
    let given: Arc<Mutex<Vec<BTreeSet<String>>>> = Arc::new(Mutex::new(vec![BTreeSet::new(); EXPIRIES as usize]));
    std::thread::scope(|scope| {
        for _ in 0..USERS {
            let (handle, barrier, given, clock) = (broker.handle(), barrier.clone(), given.clone(), clock.clone());
            scope.spawn(move || {
                for round in 0..EXPIRIES {
                    barrier.wait();
                    let now_ms = clock.now_ms();
                    let lease = handle.lease(request(), now_ms).unwrap();
                    let token = token(&handle, &lease, now_ms).unwrap_or_else(|error| panic!("round {round}: {error}"));
                    given.lock().unwrap()[round as usize].insert(token);
                    handle.release(lease);
                    barrier.wait();
                }
            });
        }
        for _ in 0..EXPIRIES {
            clock.advance(2 * HOUR_MS);
            barrier.wait();
            barrier.wait();
        }
    });
    assert_eq!(served.load(Ordering::SeqCst), EXPIRIES);
    let counts = (ledger.requested.load(Ordering::SeqCst), ledger.responded.load(Ordering::SeqCst));
    assert_eq!(counts, (EXPIRIES, EXPIRIES), "each exchange has both records");
    for (round, tokens) in given.lock().unwrap().iter().enumerate() {
        assert_eq!(tokens.iter().collect::<Vec<_>>(), [&format!("access-token-{}", round + 1)], "round {round}");
    }
    broker.stop().unwrap();
    server.unblock();
    server_thread.join().unwrap();
}

#[test]
fn a_new_token_is_on_disk_before_anybody_gets_it_and_the_lease_goes_on() {
    let scratch = Scratch::new();
    let (root, clock, fake) = (scratch.open_root(), Hands::new(), Fake::rotating());
    let broker = start(&root, fake.clone(), &clock);
    let handle = broker.handle();
    handle.put(account("https://issuer.example/token", Some(START_MS + 1_000))).unwrap();
    let lease = handle.lease(request(), START_MS).unwrap();
    assert_eq!(token(&handle, &lease, START_MS).unwrap(), "access-token-1");
    // What lies on disk is what a process that dies now leaves to the next one.
    let copies = Scratch::new();
    let copy = copies.open_root();
    std::fs::copy(state_root_scratch::store_path(&root), state_root_scratch::store_path(&copy)).unwrap();
    let restarted = start(&copy, Fake::new(failing("unreachable", false)), &clock);
    let its_lease = restarted.handle().lease(request(), START_MS).unwrap();
    assert_eq!(token(&restarted.handle(), &its_lease, START_MS).unwrap(), "access-token-1");
    // A refresh is not an overwriting: the same lease is good for the next token.
    clock.advance(300_000);
    assert_eq!(token(&handle, &lease, START_MS + 300_000).unwrap(), "access-token-1");
    assert_eq!(fake.calls(), 1);
    assert_eq!(details(&handle)["last_refresh_outcome"], json!("success"));
    assert_eq!(
        handle.redact("access-token-0 refresh-token-0 access-token-1 refresh-token-1"),
        "<redacted> ".repeat(4).trim_end()
    );
}

#[test]
fn an_aging_token_is_used_while_the_next_one_is_fetched() {
    let scratch = Scratch::new();
    let (root, clock, fake) = (scratch.open_root(), Hands::new(), Fake::rotating());
    let broker = start(&root, fake.clone(), &clock);
    let handle = broker.handle();
    handle.put(account("https://issuer.example/token", Some(START_MS + 120_000))).unwrap();
    let lease = handle.lease(request(), START_MS).unwrap();
    let first = token(&handle, &lease, START_MS).unwrap();
    assert!(first == "access-token-0", "nobody waits while the token lasts: {first}");
    // A forced refresh waits for the one under way, or finds it done.
    handle.refresh_account(&id(SLOT)).unwrap();
    assert_eq!((fake.calls(), token(&handle, &lease, START_MS).unwrap()), (1, "access-token-1".to_string()));
}

#[test]
fn a_failed_refresh_keeps_the_old_token_and_is_tried_again_only_after_a_pause() {
    let scratch = Scratch::new();
    let (root, clock, fake) = (scratch.open_root(), Hands::new(), Fake::new(failing("unreachable", false)));
    let broker = start(&root, fake.clone(), &clock);
    let handle = broker.handle();
    handle.put(account("https://issuer.example/token", Some(START_MS + 120_000))).unwrap();
    let lease = handle.lease(request(), START_MS).unwrap();
    // It lasts still, whatever became of the refresh.
    for _ in 0..5 {
        assert_eq!(token(&handle, &lease, START_MS).unwrap(), "access-token-0");
    }
    clock.advance(121_000);
    let now_ms = clock.now_ms();
    let refused = token(&handle, &lease, now_ms).unwrap_err();
    assert!(matches!(refused, BrokerError::RefreshFailed { class: "unreachable", .. }), "{refused}");
    let calls = fake.calls();
    for _ in 0..20 {
        assert!(matches!(
            token(&handle, &lease, now_ms),
            Err(BrokerError::RefreshFailed { retry_after_ms: Some(_), .. })
        ));
    }
    assert_eq!(fake.calls(), calls, "nobody is asked during the pause");
    assert_eq!(details(&handle)["last_refresh_outcome"], json!("unreachable"));
    fake.answer(Box::new(|_, request| {
        assert_eq!(request.refresh_token.expose(), b"refresh-token-0", "it was not lost");
        Ok(tokens(7))
    }));
    clock.advance(300_000);
    assert_eq!(token(&handle, &lease, clock.now_ms()).unwrap(), "access-token-7");
    // The same over a restart.
    broker.stop().unwrap();
    let broker = start(&root, fake.clone(), &clock);
    let lease = broker.handle().lease(request(), clock.now_ms()).unwrap();
    assert_eq!(token(&broker.handle(), &lease, clock.now_ms()).unwrap(), "access-token-7");
}

#[test]
fn a_final_refusal_is_not_repeated_until_somebody_asks_or_the_account_is_set_again() {
    let scratch = Scratch::new();
    let (root, clock, fake) = (scratch.open_root(), Hands::new(), Fake::new(failing("rejected", true)));
    let broker = start(&root, fake.clone(), &clock);
    let handle = broker.handle();
    handle.put(account("https://issuer.example/token", Some(START_MS))).unwrap();
    for _ in 0..10 {
        clock.advance(HOUR_MS);
        let lease = handle.lease(request(), clock.now_ms()).unwrap();
        let refused = token(&handle, &lease, clock.now_ms()).unwrap_err();
        assert!(matches!(refused, BrokerError::RefreshFailed { retry_after_ms: None, .. }), "{refused}");
    }
    assert_eq!(fake.calls(), 1);
    assert!(matches!(handle.refresh_account(&id(SLOT)), Err(BrokerError::RefreshFailed { .. })));
    assert_eq!(fake.calls(), 2, "an operator may try");
    let lease = handle.lease(request(), clock.now_ms()).unwrap();
    handle.put(account("https://issuer.example/token", Some(clock.now_ms() + HOUR_MS))).unwrap();
    assert!(matches!(token(&handle, &lease, clock.now_ms()), Err(BrokerError::LeaseRevoked { .. })));
    let lease = handle.lease(request(), clock.now_ms()).unwrap();
    assert_eq!(token(&handle, &lease, clock.now_ms()).unwrap(), "access-token-0");
}

#[test]
fn wider_scopes_are_stored_and_not_used() {
    let scratch = Scratch::new();
    let (root, clock) = (scratch.open_root(), Hands::new());
    let wider =
        |number| RefreshedTokens { scopes: Some(vec!["read".to_string(), "admin".to_string()]), ..tokens(number) };
    let fake = Fake::new(Box::new(move |number, _| Ok(wider(number))));
    let broker = start(&root, fake.clone(), &clock);
    let handle = broker.handle();
    handle.put(account("https://issuer.example/token", Some(START_MS))).unwrap();
    let lease = handle.lease(request(), START_MS).unwrap();
    let refused = token(&handle, &lease, START_MS).unwrap_err();
    assert!(matches!(refused, BrokerError::RefreshFailed { class: "scope_widened", .. }), "{refused}");
    // The rotated refresh token is the only good one, so it was kept.
    fake.answer(Box::new(|_, request| {
        assert_eq!(request.refresh_token.expose(), b"refresh-token-1");
        Ok(tokens(2))
    }));
    clock.advance(60_000);
    handle.refresh_account(&id(SLOT)).unwrap();
    assert_eq!(token(&handle, &lease, clock.now_ms()).unwrap(), "access-token-2");
}

#[test]
fn a_token_that_cannot_be_stored_is_not_used_and_not_lost_and_not_fetched_twice() {
    let scratch = Scratch::new();
    let (root, clock, fake) = (scratch.open_root(), Hands::new(), Fake::rotating());
    let broker = start(&root, fake.clone(), &clock);
    let handle = broker.handle();
    handle.put(account("https://issuer.example/token", Some(START_MS))).unwrap();
    let lease = handle.lease(request(), START_MS).unwrap();
    let auth = state_root_scratch::store_path(&root).parent().unwrap().to_path_buf();
    let away = scratch.path().join("away");
    std::fs::rename(&auth, &away).unwrap();
    for _ in 0..3 {
        assert!(token(&handle, &lease, START_MS).is_err(), "it is not on disk");
    }
    std::fs::rename(&away, &auth).unwrap();
    assert_eq!(token(&handle, &lease, START_MS).unwrap(), "access-token-1");
    assert_eq!(fake.calls(), 1);
}

#[test]
fn a_revoked_account_is_neither_given_out_nor_refreshed() {
    let scratch = Scratch::new();
    let (root, clock, fake) = (scratch.open_root(), Hands::new(), Fake::rotating());
    let broker = start(&root, fake.clone(), &clock);
    let handle = broker.handle();
    let slot: SlotId = id(SLOT);
    handle.put(account("https://issuer.example/token", Some(START_MS + HOUR_MS))).unwrap();
    let lease = handle.lease(request(), START_MS).unwrap();
    assert!(handle.revoke_slot(&slot, Revocation::default(), START_MS).unwrap().blocked);
    assert!(matches!(token(&handle, &lease, START_MS), Err(BrokerError::LeaseRevoked { .. })));
    assert!(matches!(handle.lease(request(), START_MS), Err(BrokerError::SlotRevoked { .. })));
    assert!(matches!(handle.refresh_account(&slot), Err(BrokerError::SlotRevoked { .. })));
    assert_eq!(fake.calls(), 0);
    assert!(matches!(handle.refresh_account(&id("no.such")), Err(BrokerError::SlotMissing { .. })));
    handle.put(state_root_scratch::record("openai.prod", Provider::OpenAi, "sk-secret-one")).unwrap();
    assert!(matches!(handle.refresh_account(&id("openai.prod")), Err(BrokerError::NotAnAccount { .. })));
}

#[test]
fn an_exchange_that_cannot_be_recorded_is_not_made() {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let address = server.server_addr().to_ip().unwrap();
    let net = Net::new(&NetConfig { ca_file: None, resolver_threads: 1, ..NetConfig::default() }).unwrap();
    let ledger = Arc::new(Ledger::default());
    ledger.refuses.store(true, Ordering::SeqCst);
    let exchange = HttpExchange::new(net, ledger);
    let request = RefreshRequest {
        slot: SlotId::parse("mcp.oauth.docs").unwrap(),
        token_endpoint: format!("http://{address}/token"),
        client_id: "client".to_string(),
        client_secret: None,
        client_auth: ClientAuth::default(),
        resource: "https://mcp.example/mcp".to_string(),
        refresh_token: secret("refresh-token-0"),
        scopes: Vec::new(),
    };
    let failure = exchange.refresh(&request, &Cancel::new()).unwrap_err();
    assert_eq!((failure.class, failure.is_final, failure.reason.as_str()), ("unrecorded", false, "no space is left"));
    assert!(server.try_recv().unwrap().is_none(), "nobody called");
}
