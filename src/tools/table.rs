//! The table of tools.
//! Owns: names, descriptions, schemas and classes; docs/tools.md repeats it and a test compares the two.
//! Never: holds code.

use super::{Behavior, Class, Place, ToolDef};
use crate::limits::{AGENT_WAIT_MS_MAX, TOOL_SHELL_TIMEOUT_MS_MAX};

/// A tool that reads the workspace.
const READING: ToolDef = ToolDef {
    name: "",
    description: "",
    input_schema: "",
    place: Place::Worker,
    class: Class::ReadOnly,
    timeout_ms: 10_000,
    idempotent: true,
    parallel: true,
    plan_safe: true,
    default_rule: Behavior::Allow,
};

/// A tool that changes files of the workspace.
const EDITING: ToolDef = ToolDef {
    class: Class::Edit,
    idempotent: false,
    parallel: false,
    plan_safe: false,
    default_rule: Behavior::Ask,
    ..READING
};

/// A tool that asks the daemon.
const ASKING: ToolDef = ToolDef { place: Place::Daemon, parallel: false, ..READING };

/// A tool that changes what the daemon keeps.
const CONTROL: ToolDef =
    ToolDef { class: Class::Control, idempotent: false, plan_safe: false, default_rule: Behavior::Allow, ..ASKING };

/// Every built-in tool, in the order in which models are told of them.
pub static TOOLS: &[ToolDef] = &[
    ToolDef {
        name: "read_file",
        description: "Reads lines of a file of the workspace. Large files are read in ranges: `truncated` and \
                      `next_start_line` tell when there is more. `sha256` is that of the whole file and can be given \
                      to write_file and edit_file as `expected_sha256`.",
        input_schema: r#"{"type":"object","properties":{
"path":{"type":"string","minLength":1,"maxLength":4096,"description":"File, relative to the workspace."},
"start_line":{"type":"integer","minimum":1,"description":"First line, from 1. Default 1."},
"line_count":{"type":"integer","minimum":1,"maximum":1000000,"description":"Lines at most. Default: as many as fit."},
"include_base64":{"type":"boolean","description":"For a binary file: give its bytes as base64 too."},
"start_byte":{"type":"integer","minimum":0,"description":"Instead of lines: first byte, from 0. For very long lines and binary files."},
"byte_count":{"type":"integer","minimum":1,"maximum":131072,"description":"Bytes at most, with start_byte."}
},"required":["path"],"additionalProperties":false}"#,
        ..READING
    },
    ToolDef {
        name: "write_file",
        description: "Creates or replaces a file of the workspace as a whole; missing directories are made. Exactly \
                      one of `content` and `content_base64` is given. With `expected_sha256` nothing is written \
                      unless the file still has that digest; `\"\"` means that it must not exist yet.",
        input_schema: r#"{"type":"object","properties":{
"path":{"type":"string","minLength":1,"maxLength":4096,"description":"File, relative to the workspace."},
"content":{"type":"string","maxLength":4194304,"description":"The whole text."},
"content_base64":{"type":"string","maxLength":5592408,"description":"The whole content as base64."},
"expected_sha256":{"type":"string","maxLength":64,"description":"Digest that the file must have, or empty: it must not exist."}
},"required":["path"],"additionalProperties":false}"#,
        timeout_ms: 10_000,
        ..EDITING
    },
    ToolDef {
        name: "edit_file",
        description: "Replaces a text in a file of the workspace. `old_text` must occur exactly once, unless \
                      `replace_all` is true; it is compared byte for byte.",
        input_schema: r#"{"type":"object","properties":{
"path":{"type":"string","minLength":1,"maxLength":4096,"description":"File, relative to the workspace."},
"old_text":{"type":"string","minLength":1,"maxLength":4194304,"description":"Text to be replaced, with enough context to be unique."},
"new_text":{"type":"string","maxLength":4194304,"description":"Text to stand there instead."},
"replace_all":{"type":"boolean","description":"Replace every occurrence."},
"expected_sha256":{"type":"string","minLength":64,"maxLength":64,"description":"Digest that the file must have."}
},"required":["path","old_text","new_text"],"additionalProperties":false}"#,
        timeout_ms: 10_000,
        ..EDITING
    },
    ToolDef {
        name: "apply_patch",
        description: "Applies several replacements to one or more existing files, all or none. Hunks are applied in \
                      order, each to the result of those before it, under the rules of edit_file.",
        input_schema: r#"{"type":"object","properties":{
"hunks":{"type":"array","minItems":1,"maxItems":256,"items":{"type":"object","properties":{
"path":{"type":"string","minLength":1,"maxLength":4096,"description":"File, relative to the workspace."},
"old_text":{"type":"string","minLength":1,"maxLength":4194304,"description":"Text to be replaced."},
"new_text":{"type":"string","maxLength":4194304,"description":"Text to stand there instead."},
"replace_all":{"type":"boolean","description":"Replace every occurrence."},
"expected_sha256":{"type":"string","minLength":64,"maxLength":64,"description":"Digest that the file must have before the first hunk."}
},"required":["path","old_text","new_text"],"additionalProperties":false}}
},"required":["hunks"],"additionalProperties":false}"#,
        timeout_ms: 20_000,
        ..EDITING
    },
    ToolDef {
        name: "list_files",
        description: "Lists files beneath a directory of the workspace, sorted. `depth` 1 lists the directory alone; \
                      a directory that is not entered ends in `/`. Symbolic links to directories are not followed, \
                      version-control data is left out.",
        input_schema: r#"{"type":"object","properties":{
"base":{"type":"string","maxLength":4096,"description":"Directory, relative to the workspace. Default: the workspace."},
"depth":{"type":"integer","minimum":1,"maximum":64,"description":"Levels to descend. Default: all."},
"limit":{"type":"integer","minimum":1,"description":"Paths at most, up to 200. Default 200."},
"include_ignored":{"type":"boolean","description":"Show what .gitignore files leave out too."}
},"additionalProperties":false}"#,
        ..READING
    },
    ToolDef {
        name: "glob_search",
        description: "Finds files by name, sorted. `*` and `?` stay within a name, `**` crosses directories, \
                      `[abc]` and `{a,b}` are alternatives. A pattern without `/` is compared with file names in every \
                      directory.",
        input_schema: r#"{"type":"object","properties":{
"pattern":{"type":"string","minLength":1,"maxLength":1024,"description":"For example `src/**/*.rs`."},
"base":{"type":"string","maxLength":4096,"description":"Directory, relative to the workspace. Default: the workspace."},
"limit":{"type":"integer","minimum":1,"description":"Paths at most, up to 200. Default 200."},
"include_ignored":{"type":"boolean","description":"Show what .gitignore files leave out too."}
},"required":["pattern"],"additionalProperties":false}"#,
        ..READING
    },
    ToolDef {
        name: "grep_search",
        description: "Finds lines that match a regular expression (no look-around, no back-references), in order of \
                      path and line. Binary files and version-control data are left out. `truncated` tells that there \
                      may be more.",
        input_schema: r#"{"type":"object","properties":{
"pattern":{"type":"string","minLength":1,"maxLength":1024,"description":"Regular expression."},
"base":{"type":"string","maxLength":4096,"description":"Directory or file, relative to the workspace. Default: the workspace."},
"glob":{"type":"string","minLength":1,"maxLength":1024,"description":"Search only files that match this pattern of glob_search."},
"ignore_case":{"type":"boolean","description":"Upper and lower case are the same."},
"limit":{"type":"integer","minimum":1,"description":"Matches at most, up to 200. Default 200."},
"include_ignored":{"type":"boolean","description":"Search what .gitignore files leave out too."}
},"required":["pattern"],"additionalProperties":false}"#,
        ..READING
    },
    ToolDef {
        name: "bash",
        description: "Runs a command with bash in the workspace. Everything that it started is ended when the command \
                      ends or its time is up. With `run_in_background` it becomes a task that goes on: the answer is \
                      its `task_id` for task_output and task_stop. Long output is cut in the middle and says so.",
        input_schema: r#"{"type":"object","properties":{
"command":{"type":"string","minLength":1,"maxLength":65536,"description":"Given to bash -c."},
"workdir":{"type":"string","maxLength":4096,"description":"Directory, relative to the workspace. Default: the workspace."},
"timeout_ms":{"type":"integer","minimum":100,"maximum":180000,"description":"Time limit in the foreground. Default 20000."},
"run_in_background":{"type":"boolean","description":"Go on as a task instead of waiting."}
},"required":["command"],"additionalProperties":false}"#,
        class: Class::Shell,
        timeout_ms: TOOL_SHELL_TIMEOUT_MS_MAX,
        ..EDITING
    },
    ToolDef {
        name: "task_list",
        description: "Lists this session's tasks: background commands and to-do items.",
        input_schema: r#"{"type":"object","properties":{
"status":{"type":"string","enum":["pending","in_progress","blocked","completed","failed","cancelled"],"description":"Only tasks in this state."}
},"additionalProperties":false}"#,
        ..ASKING
    },
    ToolDef {
        name: "task_get",
        description: "Shows one task of this session.",
        input_schema: r#"{"type":"object","properties":{
"task_id":{"type":"string","minLength":1,"maxLength":64,"description":"The task."}
},"required":["task_id"],"additionalProperties":false}"#,
        ..ASKING
    },
    ToolDef {
        name: "task_output",
        description: "Shows the newest output of a background command. With `wait` it waits until the command has \
                      ended, at most `timeout_ms`.",
        input_schema: r#"{"type":"object","properties":{
"task_id":{"type":"string","minLength":1,"maxLength":64,"description":"The task."},
"wait":{"type":"boolean","description":"Wait for the end of the command."},
"timeout_ms":{"type":"integer","minimum":1,"maximum":60000,"description":"Longest wait. Default 30000."},
"tail_bytes":{"type":"integer","minimum":1,"maximum":131072,"description":"Bytes at most, from the end. Default 8192."}
},"required":["task_id"],"additionalProperties":false}"#,
        timeout_ms: 65_000,
        ..ASKING
    },
    ToolDef {
        name: "task_stop",
        description: "Ends a background command with everything that it started.",
        input_schema: r#"{"type":"object","properties":{
"task_id":{"type":"string","minLength":1,"maxLength":64,"description":"The task."},
"reason":{"type":"string","maxLength":1024,"description":"Why."}
},"required":["task_id"],"additionalProperties":false}"#,
        idempotent: true,
        ..CONTROL
    },
    ToolDef {
        name: "task_create",
        description: "Adds a to-do item to this session's list.",
        input_schema: r#"{"type":"object","properties":{
"title":{"type":"string","minLength":1,"maxLength":256,"description":"What is to be done."},
"description":{"type":"string","maxLength":4096,"description":"Details."},
"status":{"type":"string","enum":["pending","in_progress","blocked"],"description":"Default pending."},
"blocked_by":{"type":"array","maxItems":32,"items":{"type":"string","minLength":1,"maxLength":64},"description":"Tasks that must be done first."}
},"required":["title"],"additionalProperties":false}"#,
        ..CONTROL
    },
    ToolDef {
        name: "task_update",
        description: "Changes a to-do item of this session. An item that is completed, failed or cancelled stays as it \
                      is.",
        input_schema: r#"{"type":"object","properties":{
"task_id":{"type":"string","minLength":1,"maxLength":64,"description":"The item."},
"title":{"type":"string","minLength":1,"maxLength":256,"description":"New title."},
"description":{"type":"string","maxLength":4096,"description":"New details."},
"status":{"type":"string","enum":["pending","in_progress","blocked","completed","failed","cancelled"],"description":"New state."},
"blocked_by":{"type":"array","maxItems":32,"items":{"type":"string","minLength":1,"maxLength":64},"description":"Tasks that must be done first."},
"output":{"type":"string","maxLength":4096,"description":"What came of it."}
},"required":["task_id"],"additionalProperties":false}"#,
        idempotent: true,
        ..CONTROL
    },
    ToolDef {
        name: "task_delete",
        description: "Takes an open to-do item off this session's list. Items that have ended stay on record.",
        input_schema: r#"{"type":"object","properties":{
"task_id":{"type":"string","minLength":1,"maxLength":64,"description":"The item."}
},"required":["task_id"],"additionalProperties":false}"#,
        ..CONTROL
    },
    ToolDef {
        name: "todo_write",
        description: "Replaces this session's short list of notes on what is to be done.",
        input_schema: r#"{"type":"object","properties":{
"todos":{"type":"array","maxItems":64,"items":{"type":"object","properties":{
"id":{"type":"string","minLength":1,"maxLength":64,"description":"Any name, unique in the list."},
"content":{"type":"string","minLength":1,"maxLength":512,"description":"What is to be done."},
"completed":{"type":"boolean","description":"It is done."}
},"required":["id","content","completed"],"additionalProperties":false},"description":"The whole new list."}
},"required":["todos"],"additionalProperties":false}"#,
        idempotent: true,
        ..CONTROL
    },
    ToolDef {
        name: "ask_user_question",
        description: "Asks the people who watch this session one to four questions and waits for their answer. \
                      Without options the answer is free text.",
        input_schema: r#"{"type":"object","properties":{
"questions":{"type":"array","minItems":1,"maxItems":4,"items":{"type":"object","properties":{
"id":{"type":"string","minLength":1,"maxLength":64,"description":"Any name, unique in the list."},
"header":{"type":"string","maxLength":64,"description":"A word or two."},
"question":{"type":"string","minLength":1,"maxLength":2048,"description":"The question."},
"options":{"type":"array","maxItems":8,"items":{"type":"object","properties":{
"id":{"type":"string","minLength":1,"maxLength":64},
"label":{"type":"string","minLength":1,"maxLength":256},
"description":{"type":"string","maxLength":1024},
"preview":{"type":"string","maxLength":4096}
},"required":["id","label"],"additionalProperties":false},"description":"Answers to choose from."},
"multi_select":{"type":"boolean","description":"More than one option may be chosen."}
},"required":["id","question"],"additionalProperties":false}},
"expires_after_ms":{"type":"integer","minimum":1000,"maximum":604800000,"description":"Give up after this time."}
},"required":["questions"],"additionalProperties":false}"#,
        class: Class::Control,
        idempotent: false,
        timeout_ms: 1_000,
        ..ASKING
    },
    ToolDef {
        name: "spawn_agent",
        description: "Makes a child agent that works on a task of its own beside you, with a fresh conversation: tell it \
                      everything that it needs to know. It may do at most what you may. The answer is its `agent_id` \
                      for wait_agent. Its work ends when your run is stopped or fails.",
        input_schema: r#"{"type":"object","properties":{
"task":{"type":"string","minLength":1,"maxLength":65536,"description":"What it is to do, and what it is to answer."},
"name":{"type":"string","maxLength":64,"description":"A word or two, for lists."},
"allowed_tools":{"type":"array","maxItems":64,"items":{"type":"string","minLength":1,"maxLength":128},"description":"Only these of your tools; a name may end in *."},
"blocked_tools":{"type":"array","maxItems":64,"items":{"type":"string","minLength":1,"maxLength":128},"description":"Not these of your tools."},
"mode":{"type":"string","enum":["default","acceptEdits","plan","dontAsk","bypassPermissions"],"description":"Permission mode, at most as wide as yours."},
"workspace":{"type":"string","maxLength":1024,"description":"Directory below yours, which is all that it sees. Default: yours."},
"read_only":{"type":"boolean","description":"It cannot change files."},
"retention":{"type":"string","enum":["retain","close_on_settle"],"description":"retain: it stays open for message_agent. Default: it is closed when its work is done."}
},"required":["task"],"additionalProperties":false}"#,
        idempotent: true,
        plan_safe: true,
        ..CONTROL
    },
    ToolDef {
        name: "wait_agent",
        description: "Waits until child agents have done their work, and shows what each answered. It also ends when one \
                      asks you something with request_parent_clarification: answer it with answer_agent and wait again.",
        input_schema: r#"{"type":"object","properties":{
"agent_ids":{"type":"array","minItems":1,"maxItems":24,"items":{"type":"string","minLength":1,"maxLength":32},"description":"Agents that you made."},
"any":{"type":"boolean","description":"The first that is done ends the wait, instead of the last."},
"timeout_ms":{"type":"integer","minimum":0,"maximum":3600000,"description":"Longest wait. Default 600000."}
},"required":["agent_ids"],"additionalProperties":false}"#,
        timeout_ms: AGENT_WAIT_MS_MAX,
        ..ASKING
    },
    ToolDef {
        name: "message_agent",
        description: "Puts a message into the mailbox of an agent that you made, or of the one that made you (`parent`). \
                      It is told with its next run, when what it does now is done.",
        input_schema: r#"{"type":"object","properties":{
"agent_id":{"type":"string","minLength":1,"maxLength":32,"description":"The agent, or parent."},
"subject":{"type":"string","maxLength":256,"description":"A few words."},
"message":{"type":"string","minLength":1,"maxLength":65536,"description":"What you tell it."}
},"required":["agent_id","message"],"additionalProperties":false}"#,
        plan_safe: true,
        ..CONTROL
    },
    ToolDef {
        name: "answer_agent",
        description: "Answers what a child agent asks you with request_parent_clarification.",
        input_schema: r#"{"type":"object","properties":{
"agent_id":{"type":"string","minLength":1,"maxLength":32,"description":"The agent that asks."},
"question_id":{"type":"string","minLength":1,"maxLength":64,"description":"As wait_agent shows it."},
"answers":{"type":"array","maxItems":4,"items":{"type":"object","properties":{
"question_id":{"type":"string","minLength":1,"maxLength":64},
"selected_option_ids":{"type":"array","maxItems":8,"items":{"type":"string","minLength":1,"maxLength":64}},
"freeform_answer":{"type":"string","maxLength":16384}
},"required":["question_id"],"additionalProperties":false},"description":"One for each of its questions."},
"declined":{"type":"boolean","description":"You cannot answer; it goes on without."}
},"required":["agent_id","question_id"],"additionalProperties":false}"#,
        plan_safe: true,
        ..CONTROL
    },
    ToolDef {
        name: "list_agents",
        description: "Lists the agents that you made, and those that they made.",
        input_schema: r#"{"type":"object","properties":{},"additionalProperties":false}"#,
        ..ASKING
    },
    ToolDef {
        name: "get_agent",
        description: "Shows one agent that you made: its state, its last answer, and what it asks you.",
        input_schema: r#"{"type":"object","properties":{
"agent_id":{"type":"string","minLength":1,"maxLength":32,"description":"The agent."}
},"required":["agent_id"],"additionalProperties":false}"#,
        ..ASKING
    },
    ToolDef {
        name: "request_parent_clarification",
        description: "Asks the agent that made you one to four questions and waits for the answer; people who watch may \
                      answer as well. Use it when the task cannot be done without.",
        input_schema: r#"{"type":"object","properties":{
"questions":{"type":"array","minItems":1,"maxItems":4,"items":{"type":"object","properties":{
"id":{"type":"string","minLength":1,"maxLength":64,"description":"Any name, unique in the list."},
"header":{"type":"string","maxLength":64,"description":"A word or two."},
"question":{"type":"string","minLength":1,"maxLength":2048,"description":"The question."},
"options":{"type":"array","maxItems":8,"items":{"type":"object","properties":{
"id":{"type":"string","minLength":1,"maxLength":64},
"label":{"type":"string","minLength":1,"maxLength":256},
"description":{"type":"string","maxLength":1024},
"preview":{"type":"string","maxLength":4096}
},"required":["id","label"],"additionalProperties":false},"description":"Answers to choose from."},
"multi_select":{"type":"boolean","description":"More than one option may be chosen."}
},"required":["id","question"],"additionalProperties":false}},
"expires_after_ms":{"type":"integer","minimum":1000,"maximum":604800000,"description":"Go on without an answer after this time."}
},"required":["questions"],"additionalProperties":false}"#,
        class: Class::Control,
        idempotent: false,
        timeout_ms: 1_000,
        ..ASKING
    },
    ToolDef {
        name: "web_fetch",
        description: "Fetches a page from the public web (http or https). Private and local addresses are refused. \
                      Switched off unless the operator has allowed it.",
        input_schema: r#"{"type":"object","properties":{
"url":{"type":"string","minLength":8,"maxLength":2048,"description":"Whole address, without credentials."}
},"required":["url"],"additionalProperties":false}"#,
        class: Class::Network,
        timeout_ms: 15_000,
        parallel: true,
        ..ASKING
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_legal_name_a_description_and_a_schema_in_which_every_field_is_typed() {
        fn typed(schema: &serde_json::Value, at: &str) {
            let kind = schema["type"].as_str().unwrap_or_else(|| panic!("{at}: no type"));
            if kind == "object" {
                assert_eq!(schema["additionalProperties"], false, "{at} is open");
                for (name, property) in schema["properties"].as_object().expect(at) {
                    typed(property, &format!("{at}.{name}"));
                }
            } else if kind == "array" {
                assert!(schema["maxItems"].is_u64(), "{at} has no bound");
                typed(&schema["items"], &format!("{at}[]"));
            } else if kind == "string" {
                assert!(schema["maxLength"].is_u64() || schema["enum"].is_array(), "{at} has no bound");
            }
        }
        for (index, def) in TOOLS.iter().enumerate() {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(!def.name.is_empty() && def.name.len() <= 64 && def.name.bytes().all(legal), "{}", def.name);
            assert!(TOOLS[..index].iter().all(|other| other.name != def.name), "{} twice", def.name);
            assert!(!def.description.is_empty() && !def.description.contains('\n'), "{}", def.name);
            typed(&serde_json::from_str(def.input_schema).expect(def.name), def.name);
            assert!(def.default_rule != Behavior::Deny, "{} could never be called", def.name);
        }
    }

    #[test]
    fn what_plan_mode_keeps_changes_no_file_and_starts_no_process() {
        for def in TOOLS {
            assert!(!def.plan_safe || !matches!(def.class, Class::Edit | Class::Shell), "{}", def.name);
            assert!(def.place == Place::Worker || !matches!(def.class, Class::Edit), "{}", def.name);
        }
        let of_plan: Vec<&str> = TOOLS.iter().filter(|def| def.plan_safe).map(|def| def.name).collect();
        let expected = [
            "read_file",
            "list_files",
            "glob_search",
            "grep_search",
            "task_list",
            "task_get",
            "task_output",
            "ask_user_question",
            "spawn_agent",
            "wait_agent",
            "message_agent",
            "answer_agent",
            "list_agents",
            "get_agent",
            "request_parent_clarification",
            "web_fetch",
        ];
        assert_eq!(of_plan, expected);
    }
}
