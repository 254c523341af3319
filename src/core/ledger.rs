//! Decisions about records of external actions: signing them, and closing those that nobody will answer.
//! Owns: which chain a record belongs to.
//! Never: lets a run end or be resumed with an action that has no outcome on record.

use serde_json::value::RawValue;

use super::action::{ActionChain, Occasion};
use super::command::NoteKind;
use super::event::{Body, Event};
use super::txn::{Txn, agent_id};
use crate::limits::ACTIONS_OPEN_MAX;

impl Txn<'_> {
    /// Decides that an action was asked for or answered, on the chain of run number `chain`, or on the daemon's for 0.
    /// `session` and `run` are whom it serves; 0 is nobody.
    pub(super) fn emit_action(&mut self, chain: u32, session: u32, run: u32, kind: NoteKind, draft: &RawValue) {
        let is_request = kind == NoteKind::ActionRequest;
        let full = self.chain(chain).filter(|known| is_request && known.open().len() >= ACTIONS_OPEN_MAX);
        if let Some(oldest) = full.and_then(|known| known.open().first()).cloned() {
            let closing = ActionChain::unknown(&oldest, "forgotten");
            let session = self.run(oldest.run).map_or(0, |run| run.session);
            self.emit_signed(chain, session, oldest.run, NoteKind::ActionResponse, &closing);
        }
        self.emit_signed(chain, session, run, kind, draft);
    }

    fn emit_signed(&mut self, chain: u32, session: u32, run: u32, kind: NoteKind, draft: &RawValue) {
        let occasion = Occasion {
            chain: (chain != 0).then(|| self.base().run_id(chain)),
            session: self.session(session).map(|session| &session.id),
            agent: (session != 0).then(|| agent_id(session)),
            run: (run != 0).then(|| self.base().run_id(run)),
            seq: self.next_seq(),
            at_ms: self.now_ms(),
        };
        let fresh = ActionChain::default();
        let before = self.chain(chain).unwrap_or(&fresh);
        let body = before.sign(&occasion, kind == NoteKind::ActionRequest, draft, self.signer());
        match session {
            0 => self.emit_global(None, Body::RunNote(kind, body)),
            _ => self.emit_unsigned(session, run, Body::RunNote(kind, body)),
        }
    }

    /// Says of every open action of a chain that its outcome is not known.
    pub(super) fn close_actions(&mut self, chain: u32, cause: &'static str) -> usize {
        let open = self.chain(chain).map(|chain| chain.open().to_vec()).unwrap_or_default();
        for action in &open {
            let closing = ActionChain::unknown(action, cause);
            let session = self.run(action.run).map_or(0, |run| run.session);
            self.emit_signed(chain, session, action.run, NoteKind::ActionResponse, &closing);
        }
        open.len()
    }

    /// Folds a record of an action into its chain.
    pub(super) fn apply_action(&mut self, event: &Event, kind: NoteKind, body: &RawValue) -> Result<(), String> {
        let run = event.run.and_then(|id| self.run_number(id)).unwrap_or(0);
        let chain_of = |is_daemons: bool| if is_daemons { 0 } else { run };
        let is_request = kind == NoteKind::ActionRequest;
        let applied = ActionChain::apply(event.seq, run, is_request, body, |is_daemons| {
            self.chain(chain_of(is_daemons)).cloned()
        })?;
        if let Some(applied) = applied {
            self.put_chain(chain_of(applied.is_daemons), Some(applied.chain));
        }
        Ok(())
    }
}
