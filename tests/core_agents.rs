//! Child agents and mailboxes in the core, without an engine.

use kheish_daemon::core::{AgentCommand, AgentRefusal, Command, Decision, Mail, Refusal, State, Txn};
use kheish_daemon::ids::SessionId;
use kheish_daemon::limits::MAILBOX_MESSAGES_MAX;
use serde_json::json;

fn session() -> SessionId {
    SessionId::parse("s").expect("legal")
}

/// One command as a batch of its own.
fn decide(state: &mut State, now_ms: u64, command: Command) -> Result<Decision, Refusal> {
    let mut txn = Txn::new(state, now_ms, now_ms);
    let decided = txn.decide(command);
    let (delta, events) = txn.finish();
    assert!(decided.is_ok() || events.is_empty(), "a refused command leaves nothing behind");
    state.absorb(delta);
    decided
}

fn post(state: &mut State, now_ms: u64, id: &str, expires_at_ms: Option<u64>) -> Result<Decision, Refusal> {
    let mail = Mail {
        id: id.to_string(),
        from: "operator".to_string(),
        subject: "subject".to_string(),
        payload: json!({"text": id}),
        expires_at_ms,
        route: "main".to_string(),
        model: "m".to_string(),
    };
    decide(state, now_ms, Command::Agent(AgentCommand::Post { to: session(), mail: Box::new(mail) }))
}

/// What had expired counted until a run took other messages, which a full mailbox never came to.
#[test]
fn a_mailbox_full_of_expired_messages_takes_new_ones() {
    let mut state = State::default();
    state.open_epoch(7);
    decide(&mut state, 1, Command::CreateSession { id: session(), thread_id: None }).expect("created");
    // The first one is taken by a run at once, and goes on counting for as long as that is under way.
    post(&mut state, 10, "taken", None).expect("taken");
    for number in 1..MAILBOX_MESSAGES_MAX {
        post(&mut state, 20 + number as u64, &format!("m{number}"), Some(1_000)).expect("there is room");
    }
    let refused = post(&mut state, 999, "early", None);
    assert!(matches!(&refused, Err(Refusal::Agent(AgentRefusal::MailboxFull(_)))), "{refused:?}");
    post(&mut state, 1_000, "late", None).expect("nothing that holds is left but what the run took");
    for number in 2..MAILBOX_MESSAGES_MAX {
        post(&mut state, 1_000 + number as u64, &format!("n{number}"), None).expect("there is room again");
    }
    let refused = post(&mut state, 2_000, "more", None);
    assert!(matches!(&refused, Err(Refusal::Agent(AgentRefusal::MailboxFull(_)))), "{refused:?}");
}
