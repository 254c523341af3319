//! What is kept of tasks, however it was folded.
//! Owns: nothing.
//! Never: ships.

use super::*;
use crate::core::{Command, State};

fn started() -> TaskStarted {
    let text = |text: &str| text.to_string();
    TaskStarted { id: String::new(), command: text("c"), workdir: text(""), run: None, call: None, token: text("t") }
}

fn finished(id: String) -> TaskFinished {
    let end = TaskEnd {
        status: TaskStatus::Failed,
        exit_code: Some(1),
        signal: None,
        terminal_reason: None,
        detail: None,
        recovered_on_boot: false,
        tree_ended: true,
        quarantined_pids: Vec::new(),
        output_size_bytes: 1,
        output_total_bytes: 2,
        output_rotation_count: 3,
    };
    TaskFinished { id, end }
}

fn image(state: &State) -> Vec<String> {
    state.freeze().into_lines().map(|line| String::from_utf8(line).expect("JSON")).collect()
}

#[test]
fn replay_snapshot_and_batches_of_any_size_give_the_same_tasks() {
    let session = |n: usize| SessionId::parse(["a", "b"][n % 2]).expect("legal");
    for batch in [1, 3, 64] {
        let (mut live, mut replayed) = (State::default(), State::default());
        for n in 0..2 {
            let mut txn = Txn::new(&live, 1, 1 + n as u64);
            txn.decide(Command::CreateSession { id: session(n), thread_id: None }).expect("legal");
            let (delta, events) = txn.finish();
            live.absorb(delta);
            events.iter().for_each(|event| replayed.replay(event).expect("fits"));
        }
        let mut seq = 3;
        let mut step = 0;
        while step < 6 * SESSION_TASKS_KEPT_MAX {
            let mut txn = Txn::new(&live, 1_000 + step as u64, seq);
            for _ in 0..batch {
                // Two are started, then the older one ends.
                let number = step / 3 * 2 + step % 3 + 1;
                let command = match step % 3 {
                    2 => TaskCommand::Finish(session(number / 2), finished(format!("shell-task-{}", number - 2))),
                    _ => TaskCommand::Start(session(number.div_ceil(2)), started()),
                };
                // The bound of live ones is met sooner or later; a refusal changes nothing.
                drop(txn.decide(Command::Task(Box::new(command))));
                step += 1;
            }
            let (delta, events) = txn.finish();
            live.absorb(delta);
            seq += events.len() as u64;
            events.iter().for_each(|event| replayed.replay(event).expect("fits"));
        }
        assert_eq!(image(&live), image(&replayed), "batches of {batch}");
        let mut restored = State::default();
        image(&live).iter().for_each(|line| restored.restore_line(line.as_bytes()).expect("fits"));
        assert_eq!(image(&restored), image(&live));
        assert_eq!(restored.counts().tasks, live.counts().tasks);
        assert!(live.counts().tasks.live_shell <= TASKS_LIVE_MAX as u64);
    }
}

#[test]
fn ended_tasks_beyond_the_bound_are_forgotten_oldest_end_first_and_stay_counted() {
    let mut state = State::default();
    let session = SessionId::parse("s").expect("legal");
    let mut seq = 1;
    let mut decide = |state: &mut State, command: Command| {
        let mut txn = Txn::new(state, seq, seq);
        let decision = txn.decide(command);
        let (delta, events) = txn.finish();
        seq += events.len() as u64;
        state.absorb(delta);
        decision
    };
    decide(&mut state, Command::CreateSession { id: session.clone(), thread_id: None }).expect("legal");
    let total = SESSION_TASKS_KEPT_MAX + 5;
    for n in 1..=total {
        let start = TaskCommand::Start(session.clone(), started());
        decide(&mut state, Command::Task(Box::new(start))).expect("legal");
        let finish = TaskCommand::Finish(session.clone(), finished(format!("shell-task-{n}")));
        decide(&mut state, Command::Task(Box::new(finish))).expect("legal");
    }
    let kept: Vec<u32> = state.session_tasks(&session).expect("known").iter().map(|task| task.number).collect();
    assert_eq!(kept, (6..=total as u32).collect::<Vec<u32>>());
    assert_eq!(state.counts().tasks.by_status, [0, 0, 0, 0, total as u64, 0]);
    let stop = TaskCommand::Stop(session.clone(), TaskStopRequested { id: "shell-task-1".into(), reason: None });
    let gone = decide(&mut state, Command::Task(Box::new(stop)));
    assert_eq!(gone, Err(Refusal::TaskNotFound("shell-task-1".to_string())));
}

#[test]
fn a_deleted_item_is_gone_from_the_list_stays_gone_after_a_replay_and_a_command_cannot_be_deleted() {
    let mut state = State::default();
    let session = SessionId::parse("s").expect("legal");
    let mut journal = Vec::new();
    let mut decide = |state: &mut State, command: Command| {
        let seq = journal.len() as u64 + 1;
        let mut txn = Txn::new(state, seq, seq);
        let decision = txn.decide(command);
        let (delta, events) = txn.finish();
        journal.extend(events);
        state.absorb(delta);
        decision
    };
    let task = |command| Command::Task(Box::new(command));
    decide(&mut state, Command::CreateSession { id: session.clone(), thread_id: None }).expect("legal");
    for title in ["keep", "drop"] {
        let created = TaskCreated {
            id: String::new(),
            title: title.into(),
            description: String::new(),
            status: TaskStatus::Pending,
            blocked_by: Vec::new(),
            run: None,
        };
        decide(&mut state, task(TaskCommand::Create(session.clone(), created))).expect("legal");
    }
    decide(&mut state, task(TaskCommand::Start(session.clone(), started()))).expect("legal");
    let delete = |id: &str| {
        let status = Some(TaskStatus::Cancelled);
        let update = TaskUpdated { id: id.into(), status, deleted: true, ..TaskUpdated::default() };
        task(TaskCommand::Update(session.clone(), update))
    };
    decide(&mut state, delete("task-2")).expect("legal");
    assert!(matches!(decide(&mut state, delete("shell-task-3")), Err(Refusal::TaskStateConflict { .. })));
    assert!(matches!(decide(&mut state, delete("task-2")), Err(Refusal::TaskStateConflict { .. })));
    let mut again = State::default();
    for event in &journal {
        again.replay(event).expect("it was decided so");
    }
    for state in [&state, &again] {
        let ids: Vec<String> =
            state.session_tasks(&session).expect("known").iter().map(|task| task.id.clone()).collect();
        assert_eq!(ids, ["task-1", "shell-task-3"]);
        assert_eq!(state.session_task(&session, "task-2"), None);
    }
}
