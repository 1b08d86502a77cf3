"""Take each protection of docs/security-tests.md away, in a copy, and see its tests fail.

    python -m tests.security.mutations [T5 T11 …]

Prints a line a row and exits with 1 when a test passes without what it tests. Takes some minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("gateway", "plugins", "models", "tests", "docs", "pyproject.toml", "gateway.toml", "README.md", "Makefile")


class Mutation(NamedTuple):
    """`old` in `file` becomes `new`; then `test` of tests/ fails."""

    row: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = [
    Mutation("T1", "http/protocol.py", "self._count > MAX_HEADERS or self._size > MAX_HEAD", "False",
             "http/test_protocol.py::test_a_head_may_have_a_hundred_headers"),
    Mutation("T1", "http/protocol.py", "len(self.url) > MAX_URL", "False",
             "http/test_protocol.py::test_a_url_may_be_8_kib"),
    Mutation("T1", "http/protocol.py", "self._bytes > MAX_HEAD", "False",
             "http/test_protocol.py::test_one_header_that_never_ends_is_refused_when_it_is_too_long"),
    Mutation("T1", "http/protocol.py", "self._bytes += len(data)", "self._bytes += len(data) * self._in_head",
             "http/test_protocol.py::test_what_stands_between_and_behind_the_pieces_of_a_body_may_have_64_kib"),
    Mutation("T2", "http/body.py", "length is not None and length.isdigit() and int(length) > limit", "False",
             "http/test_body.py::test_a_declared_length_over_the_limit_is_refused_before_reading"),
    Mutation("T2", "http/body.py", "if size > limit:", "if False:",
             "http/test_body.py::test_however_a_body_is_cut_it_is_its_concatenation_or_too_large"),
    Mutation("T3", "http/body.py", "len(parts) > MAX_EVENTS", "False",
             "http/test_body.py::test_a_flood_of_tiny_chunks_is_refused_and_a_large_body_in_as_many_is_not"),
    Mutation("T4", "http/predict.py", "if encoding is not None and", "if False and",
             "http/test_errors.py::test_a_compressed_body_is_415_on_every_route"),
    Mutation("T5", "http/guards.py", 'headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked"', "False",
             "e2e/test_clumsy_clients.py::test_a_transfer_coding_that_nobody_decodes_is_refused"),
    Mutation("T5", "http/body.py", "whole = bytes(cycle.body)", "whole = bytes(cycle.body) + b' '",
             "security/test_http_input.py::test_of_an_ambiguous_request_the_model_sees_the_one_body_or_nothing"),
    Mutation("T6", "http/protocol.py", "call_later(self.head_timeout,", "call_later(1e9,",
             "http/test_protocol.py::test_trickling_a_head_gains_no_time"),
    Mutation("T6", "http/body.py", "min(end, loop.time() + self._idle)", "None",
             "http/test_body.py::test_no_progress_and_no_end_are_408"),
    Mutation("T7", "http/protocol.py", "self.max_connections and len(self.connections) > self.max_connections", "False",
             "http/test_protocol.py::test_connections_beyond_the_bound_are_turned_away"),
    Mutation("T8", "http/inference.py", "if is_deep(body):", "if False:",
             "http/test_inference.py::test_a_word_that_json_does_not_know_lifts_no_limit"),
    Mutation("T9", "http/body.py", '(b"{") > most:', '(b"{") < 0:',
             "http/test_body.py::test_json_that_is_dear_to_read_is_refused_before_it_is_read"),
    Mutation("T9", "http/body.py", """bare.count(b'"') > 2 * MAX_TEXTS""", "False",
             "http/test_body.py::test_json_that_is_dear_to_read_is_refused_before_it_is_read"),
    Mutation("T20", "http/guards.py", "elif (site := headers.get(", "elif (site := {}.get(",
             "http/test_guards.py::test_what_a_page_of_another_origin_loads_without_saying_so_is_refused"),
    Mutation("T18", "keys.py", "fcntl.flock(place, fcntl.LOCK_EX)", "pass",
             "test_keys.py::test_nobody_changes_the_keys_between_reading_and_writing"),
    Mutation("T62", "http/front.py", "if exchange.model and not exchange.sees(exchange.model):", "if False:",
             "security/test_callers.py::test_a_request_for_a_model_that_a_key_does_not_see_counts_for_nobody"),
    Mutation("T62", "http/routing.py", "self._hub.models or not exchange.sees(target):", "self._hub.models:",
             "security/test_callers.py::test_a_model_named_as_a_page_of_another_is_not_found_out"),
    Mutation("T62", "http/stored.py", "for one in earlier if exchange.sees(one.model)", "for one in earlier",
             "security/test_callers.py::test_what_another_model_answered_earlier_is_not_listed_when_the_key_has_lost_it"),
    Mutation("T65", "access.py", "if identity in stays:", "if identity in permits:",
             "security/test_callers.py::test_a_stream_ends_with_its_key_and_does_not_look_finished"),
    Mutation("T65", "http/exchange.py", "self.permits.hold(self)", "pass",
             "security/test_callers.py::test_a_plugins_own_stream_is_broken_off_when_its_key_is_revoked"),
    Mutation("T65", "http/exchange.py", "if self._over is not None and not self.error:", "if False:",
             "security/test_callers.py::test_an_order_whose_key_has_gone_is_not_answered_and_counts_for_no_limit"),
    Mutation("T67", "http/protocol.py", "(self._unparsed) and len(self.pipeline) < MAX_PIPELINED", "(self._unparsed)",
             "http/test_protocol.py::test_of_requests_that_come_without_end_few_are_read_ahead"),
    Mutation("T67", "http/protocol.py", "elif not self._unanswered():", "else:",
             "http/test_protocol.py::test_a_websocket_behind_an_unanswered_request_is_refused_behind_its_answer"),
    Mutation("T8", "http/body.py", "> MAX_DEPTH and is_deep(body)", "> MAX_DEPTH and False",
             "http/test_body.py::test_depth_64_is_read_and_65_is_not"),
    Mutation("T8", "http/body.py", "except (msgspec.DecodeError, ValueError, RecursionError)", "except KeyError",
             "security/test_json.py::test_no_body_makes_any_route_fail"),
    Mutation("T9", "http/body.py", "if len(whole) > limit:", "if False:",
             "http/test_errors.py::test_a_body_limit_is_exact_at_the_byte_declared_and_chunked"),
    Mutation("T10", "dialects/chat_requests.py", "= 16, 16, 256, 1024, 20", "= 99, 99, 999, 9999, 20",
             "security/test_json.py::test_a_parameter_has_its_bound"),
    Mutation("T11", "contents.py", "if path.is_symlink() and not _inside(path, home)", "if False",
             "test_contents.py::test_a_link_out_of_the_directory_is_refused_by_name"),
    Mutation("T11", "weights.py", "if reason := mounts.refusal(place, mount_roots):", "if reason := None:",
             "test_weights.py::test_no_link_is_made_but_below_a_root_of_the_operators"),
    Mutation("T11", "mounts.py", "        _check_parent(place, roots)\n", "",
             "test_weights.py::test_an_entry_cannot_lead_the_next_one_out_of_its_root"),
    Mutation("T11", "discovery.py", "if not SEGMENT.fullmatch(segment):", "if False:",
             "test_discovery.py::test_an_id_that_could_mislead_is_refused"),
    Mutation("T11", "hub.py", "    def find(self, name", "    def find(self, name, _=open(__file__)",
             "security/test_names_and_files.py::test_no_name_in_a_request_opens_a_file"),
    Mutation("T12", "values.py", "import re\n", "import pickle\nimport re\n",
             "security/test_names_and_files.py::test_nothing_in_the_gateway_turns_data_into_code"),
    Mutation("T12", "channel.py", "if size > MAX_FRAME:", "if False:",
             "test_channel.py::test_a_frame_over_the_limit_ends_the_channel_before_its_bytes_are_read"),
    Mutation("T13", "contents.py", "if found != expected:", "if False:",
             "worker/test_loader.py::test_nothing_of_a_model_runs_when_a_file_is_not_the_one_that_was_listed"),
    Mutation("T13", "../plugins/gateway_sklearn.py", 'in PICKLES and not trust.get("allow_pickle")', "in ()",
             "plugins/test_gateway_sklearn.py::test_a_pickle_is_refused_unopened"),
    Mutation("T13", "contents.py", "if others := unlisted(root, but=but):", "if others := []:",
             "worker/test_loader.py::test_nothing_of_a_model_runs_when_a_file_is_there_that_the_list_does_not_have"),
    Mutation("T13", "worker/loader.py", "    if not spec.own_code:\n        return", "    if False:\n        return",
             "security/test_data_directories.py::"
             "test_no_file_beside_the_weights_is_imported_whatever_its_name"),
    Mutation("T13", "worker/loader.py", "if spec.own_code and path.is_file():", "if path.is_file():",
             "worker/test_loader.py::test_a_directory_that_is_only_data_is_never_looked_at_for_modules"),
    Mutation("T13", "inherited.py", "    if name not in PATHS:", "    if True:",
             "security/test_data_directories.py::"
             "test_no_file_beside_the_weights_is_imported_whatever_its_name"),
    Mutation("T13", "downloads.py", "sha256 is None or fingerprint(path) == sha256.lower()", "True",
             "test_downloads.py::test_a_file_in_the_cache_is_compared_with_its_sum_at_every_use"),
    Mutation("T13", "downloads.py", 'if req.type == "https" and', "if False and",
             "test_downloads.py::test_what_is_asked_over_tls_is_not_fetched_without"),
    Mutation("T13", "weights.py", "name if is_good else", "name if name else",
             "test_weights.py::test_no_address_leads_out_of_its_place_in_the_cache"),
    Mutation("T14", "formats/config.py", "opened.read(MAX_BYTES + 1)", "opened.read()",
             "formats/test_config.py::test_no_more_of_a_file_is_read_than_counts"),
    Mutation("T14", "../plugins/gateway_lm_gguf_faults.py", "if part == other_part and start < end:", "if False:",
             "plugins/test_gateway_lm_gguf_faults.py::test_tensors_that_share_a_byte_are_refused_and_no_others"),
    Mutation("T14", "formats/safe_yaml.py", "if self._repeated > MAX_EXPANSION:", "if False:",
             "formats/test_safe_yaml.py::test_a_bomb_of_aliases_is_refused_at_once"),
    Mutation("T14", "formats/safe_yaml.py", '"CSafeLoader"', '"CUnsafeLoader"',
             "formats/test_safe_yaml.py::test_what_is_not_one_small_safe_document_is_an_error"),
    Mutation("T15", "formats/schema.py", 'OPERATORS = ("allow_pickle", "trust_remote_code")', "OPERATORS = ()",
             "security/test_names_and_files.py::test_a_model_directory_sets_nothing_that_is_the_operators"),
    Mutation("T16", "settings.py", "if gateway.api_key is None and not gateway.keys_file.is_file()", "if False",
             "test_settings.py::test_a_public_bind_without_a_key_is_refused_in_one_line"),
    Mutation("T16", "http/guards.py", "if not caller.may(scope):", "if False:",
             "security/test_doors.py::test_a_key_for_inference_opens_nothing_that_loads_or_changes_models"),
    Mutation("T17", "http/guards.py", "if self._keys.is_required or self._plugins is not None:", "if False:",
             "http/test_guards.py::test_a_walk_over_every_route_finds_no_open_door"),
    Mutation("T18", "keys.py", "            found = key\n", "            return key\n",
             "test_keys.py::test_every_entry_is_compared_whether_it_matches_or_not"),
    Mutation("T15", "formats/describe.py", "if name in allowed)", "if True)",
             "formats/test_describe.py::test_the_operator_may_list_which_of_its_secrets_a_model_has"),
    Mutation("T16", "sockets.py", "if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:", "if False:",
             "test_sockets.py::test_the_admin_socket_is_where_nobody_else_can_put_theirs"),
    Mutation("T16", "sockets.py", "if found.st_uid not in (os.getuid(), 0):", "if False:",
             "test_sockets.py::test_a_directory_for_the_admin_socket_that_is_another_users_is_refused"),
    Mutation("T16", "sockets.py", "not in (None, os.getuid(), 0):", "in ():",
             "test_sockets.py::test_a_client_asks_no_socket_of_another_user"),
    Mutation("T18", "cli/settings.py", 'if item.name == "environment"', "if False",
             "cli/test_reading.py::test_settings_tells_where_each_value_came_from"),
    Mutation("T18", "responses_store.py", "if os.fstat(opened).st_mode & 0o077:", "if False:",
             "test_responses_store.py::test_a_file_that_others_may_read_is_refused"),
    Mutation("T18", "http/predict.py", "(credential := exchange.credential)", "(credential := None)",
             "security/test_doors.py::test_a_key_opens_the_gateway_and_is_not_handed_to_the_model"),
    Mutation("T18", "http/guards.py", '                exchange.credential = b""\n', "",
             "security/test_doors.py::test_what_a_plugin_let_in_by_is_not_handed_to_the_model"),
    Mutation("T18", "redaction.py", 'if "gw_" in text:', "if False:",
             "security/test_doors.py::test_a_key_opens_the_gateway_and_is_not_handed_to_the_model"),
    Mutation("T19", "http/guards.py", "allowed = is_loopback(name) or name in self._hosts", "allowed = True",
             "http/test_guards.py::test_on_loopback_only_loopback_names_and_configured_hosts_are_answered"),
    Mutation("T20", "http/pages.py", "style-src 'unsafe-inline'; frame-ancestors 'none'", "style-src 'unsafe-inline'",
             "http/test_pages.py::test_the_root_is_true_for_programs_and_a_page_for_browsers"),
    Mutation("T20", "http/guards.py", 'elif text.partition("://")[2] != host.decode("latin-1").lower()', "elif False",
             "http/test_guards.py::test_a_foreign_origin_is_refused_with_every_method"),
    Mutation("T21", "http/body.py", "        value = _decode(body)\n",
             "        value = _decode(body)\n        import re, socket\n"
             "        for port in re.findall(rb'http://127.0.0.1:([0-9]+)', body):\n"
             "            socket.create_connection(('127.0.0.1', int(port))).close()\n",
             "security/test_doors.py::test_no_address_in_a_request_is_ever_asked"),
    Mutation("T22", "http/guards.py", 'host = headers.get(b"host")',
             'host = headers.get(b"x-forwarded-host") or headers.get(b"host")',
             "security/test_doors.py::test_forwarded_headers_reset_no_limit_and_stand_for_no_host"),
    Mutation("T23", "logs.py", "MAX_VALUE = 2048", "MAX_VALUE = 1 << 40",
             "security/test_doors.py::test_any_value_of_an_event_is_one_line_and_bounded"),
    Mutation("T23", "logs.py", "return one_line(cut(KNOWN(text)))", "return cut(KNOWN(text))",
             "test_logs.py::test_nothing_that_is_logged_makes_a_second_line_or_colours_a_terminal"),
    Mutation("T23", "runners/log.py", "text = printable.lines(text)", "pass",
             "security/test_doors.py::test_a_model_forges_no_line_and_its_secret_is_in_no_body_and_no_log"),
    Mutation("T23", "cli/tables.py", "click.echo(printable.lines(text), err=err)", "click.echo(text, err=err)",
             "test_printable.py::test_messages_and_tables_of_the_commands_are_written_out"),
    Mutation("T23", "printable.py", "\\u202a-\\u202e", "",
             "test_printable.py::test_of_all_characters_those_are_written_out_and_no_others"),
    Mutation("T23", "hub.py", "if model.has_no_place or is_admin or", "if True or",
             "http/test_models.py::test_a_failed_model_says_to_its_operator_why_and_to_others_who_knows"),
    Mutation("T23", "redaction.py", "text = text.replace(value, MARK)", "pass",
             "security/test_doors.py::test_the_reason_of_a_failed_load_has_no_secret"),
    Mutation("T26", "runners/reaper.py", 'return born(leader) in ("", begun)', "return True",
             "runners/test_reaper.py::test_a_group_whose_number_another_process_has_by_now_is_left_alone"),
    Mutation("T62", "hub.py", "models.values() if sees(model.name)]", "models.values()]",
             "security/test_callers.py::test_no_route_tells_a_scoped_key_anything_of_other_models"),
    Mutation("T62", "hub.py", "if model is not None and sees(model.name):", "if model is not None:",
             "security/test_callers.py::test_an_operator_with_patterns_operates_the_models_that_it_sees"),
    Mutation("T62", "http/guards.py", "NOBODY if known is None else", "None if known is None else",
             "security/test_callers.py::test_without_a_key_health_names_no_model"),
    Mutation("T62", "hub.py", "            return NO_ROOM\n", "            pass\n",
             "security/test_callers.py::test_who_holds_the_devices_is_told_to_those_who_see_every_model"),
    Mutation("T63", "callers.py", 'scopes: tuple[str, ...] = ("infer",)', "scopes: tuple[str, ...] = SCOPES",
             "security/test_callers.py::test_a_plain_name_means_inference_and_a_caller_the_scopes_that_it_has"),
    Mutation("T63", "http/guards.py", '_SLASHES.sub("/", f"{path}/") == "/metrics/"', 'path == "/metrics"',
             "security/test_callers.py::test_no_spelling_of_a_path_needs_a_lesser_scope"),
    Mutation("T63", "callers.py", "if isinstance(value, str | bytes) or not", "if not",
             "security/test_callers.py::test_what_makes_no_sense_as_a_caller_lets_nobody_in"),
    Mutation("T61", "http/server.py", "ws_per_message_deflate=False", "ws_per_message_deflate=True",
             "security/test_websockets.py::test_nothing_is_compressed_and_a_message_too_large_is_told"),
    Mutation("T61", "http/websocket.py", "self._size + size > WINDOW_BYTES", "False",
             "security/test_websockets.py::test_what_clients_send_that_no_model_takes_stays_with_them"),
    Mutation("T61", "http/websocket_protocol.py", "return self.close_sent or self.queue.empty()", "return True",
             "security/test_websockets.py::test_what_clients_send_that_no_model_takes_stays_with_them"),
    Mutation("T61", "http/websocket_protocol.py", "pieces >= MAX_PIECES", "False",
             "security/test_websockets.py::test_a_message_in_endless_pieces_is_refused"),
    Mutation("T61", "http/websocket_protocol.py", "if self._pings >= 0:", "if True:",
             "security/test_websockets.py::test_a_client_that_pings_without_end_is_turned_away"),
    Mutation("T61", "http/websocket_protocol.py", "call_later(self.send_timeout,", "call_later(1e9,",
             "security/test_websockets.py::test_a_client_that_never_reads_is_cut_off"),
    Mutation("T61", "shares.py", "self.messages + size <= self.max_bytes // 2", "True",
             "security/test_websockets.py::test_messages_wait_in_line_for_half_of_what_bodies_may_have"),
    Mutation("T61", "http/websocket.py", "self._permits.draw(time.monotonic())", "pass",
             "security/test_websockets.py::test_each_message_counts_for_the_rate_of_its_key"),
    Mutation("T64", "responses_store.py",
             " WHERE owner = (SELECT owner FROM owners ORDER BY size DESC, owner LIMIT 1)", "",
             "test_responses_store.py::test_whoever_keeps_most_pays_and_nobody_else"),
    Mutation("T65", "access.py", "                known.revoke()", "                pass",
             "security/test_websockets.py::test_a_websocket_ends_when_its_key_is_revoked"),
    Mutation("T65", "access.py", "call_later(min(max(0.0, left), LOOK)", "call_later(1e6",
             "security/test_callers.py::test_a_stream_ends_when_a_plugins_caller_expires"),
    Mutation("T65", "http/exchange.py", "if self._over is not None:  # it took its time to come", "if False:",
             "security/test_callers.py::test_a_body_that_comes_after_its_key_has_gone_starts_nothing"),
    Mutation("T66", "http/guards.py", "if path in FREE or path", "if True or path",
             "security/test_callers.py::test_questions_count_for_the_rate_where_somebody_has_to_work"),
    Mutation("T50", "http/protocol.py", "if self.is_local and not may_operate(sock.fileno()):", "if False:",
             "security/test_operators.py::test_what_a_model_runs_neither_operates_the_gateway_nor_reads_it"),
    Mutation("T50", "peers.py", "    is_bound = ", "    return False\n    is_bound = ",
             "security/test_operators.py::test_what_a_model_runs_neither_operates_the_gateway_nor_reads_it"),
    Mutation("T51", "worker/sandbox_landlock.py", "ABSTRACT_SOCKETS | SIGNALS)", "ABSTRACT_SOCKETS)",
             "runners/test_sandbox.py::test_a_strict_worker_signals_nobody_and_changes_no_limit_of_others"),
    Mutation("T51", "worker/sandbox_landlock.py", "DEVICE_CONTROL = 1 << 15", "DEVICE_CONTROL = 0",
             "runners/test_sandbox.py::test_a_strict_worker_neither_writes_to_a_terminal_nor_changes_how_it_works"),
    Mutation("T51", "worker/sandbox_calls.py", "    done(libc().prctl(PR_SET_SECCOMP, FILTER,",
             "    (lambda *a: 0)((PR_SET_SECCOMP, FILTER,",
             "runners/test_sandbox.py::test_a_strict_worker_signals_nobody_and_changes_no_limit_of_others"),
    Mutation("T51", "worker/sandbox_calls.py", '    if name in ("clone", "unshare"):', '    if name == "never":',
             "runners/test_sandbox.py::test_a_strict_worker_has_no_capabilities_and_still_dies_with_its_parent"),
    Mutation("T51", "worker/sandbox_calls.py", '    if name == "socket":', '    if name == "never":',
             "runners/test_sandbox.py::test_a_strict_worker_reaches_no_network_but_itself"),
    Mutation("T51", "worker/sandbox_calls.py", '    if name in ("keyctl", "add_key", "request_key"):', "    if False:",
             "runners/test_sandbox.py::test_a_strict_worker_reaches_into_no_other_process"),
    Mutation("T51", "worker/sandbox_namespaces.py", "ATTR_RDONLY, 0, 0, 0)", "0, 0, 0, 0)",
             "runners/test_sandbox.py::test_a_strict_worker_changes_nothing_about_files_outside"),
    Mutation("T51", "worker/sandbox_namespaces.py", "    os.dup2(nothing, 0, inheritable=True)", "    pass",
             "runners/test_sandbox.py::test_a_strict_worker_changes_nothing_about_files_outside"),
    Mutation("T51", "worker/sandbox_namespaces.py", "if SHARED_MEMORY.is_dir():", "if False:",
             "runners/test_sandbox.py::test_a_strict_worker_shares_no_memory_with_others"),
    Mutation("T51", "worker/sandbox.py", "if version < least:", "if False:",
             "runners/test_sandbox.py::test_without_the_sandbox_that_was_asked_for_the_model_is_not_loaded"),
    Mutation("T52", "runners/child.py", "env=begun.environment,",
             "env={**begun.environment, **self._environment(theirs.fileno())},",
             "runners/test_sandbox.py::test_no_variable_of_a_strict_model_counts_before_it_is_confined"),
    Mutation("T52", "confinement.py",
             '[sys.executable, "-I", "-S", str(PROGRAM), *command]',
             '[command[0], "-I", str(PROGRAM), *command]',
             "runners/test_sandbox.py::test_nothing_in_the_environment_of_a_strict_model_runs_before_it_is_confined"),
    Mutation("T52", "inherited.py", "    if name not in PATHS:", "    if True:",
             "runners/test_sandbox.py::test_an_empty_entry_of_a_search_path_is_not_the_directory_of_the_model"),
    Mutation("T52", "runners/child.py", "        return confinement.start(",
             '        if spec.sandbox == "basic":\n'
             "            return confinement.Start(command, self._environment(fd))\n"
             "        return confinement.start(",
             "runners/test_sandbox.py::test_nothing_in_the_environment_of_any_model_runs_before_it_has_given_up_what_no_"
             "worker_needs"),
    Mutation("T13", "formats/describe.py", "() if own_code else _drop_variables(path, data)", "()",
             "formats/test_describe.py::test_a_directory_that_is_only_data_sets_no_variables_and_says_so"),
    Mutation("T52", "formats/schema.py", "(LD_|DYLD_|PYTHON|GW_|GATEWAY_)", "(NOTHING_)",
             "formats/test_config.py::test_variables_that_run_code_are_the_operators_to_set"),
    Mutation("T53", "environments.py", "{**inherited.of_builds(), **(variables or {})}",
             "{**os.environ, **(variables or {})}",
             "test_environments.py::test_a_build_sees_what_its_model_may_and_no_secret_of_the_gateway"),
    Mutation("T53", "inherited.py", "if _is_of(name, OF_BUILDS) or _INSTALLER.fullmatch(name)",
             'if _is_of(name, OF_BUILDS) or name.startswith(("UV_", "PIP_"))',
             "test_inherited.py::test_a_build_sees_what_it_needs_to_reach_an_index_and_no_secret_of_anybody"),
    Mutation("T53", "worker/sandbox_start.py", "        sandbox.lay_down_tracing()", "        pass",
             "test_environments.py::test_a_build_does_not_read_the_environment_of_the_gateway_by_another_way"),
    Mutation("T53", "environments.py", "            sandbox=self._spec.sandbox,", '            sandbox="basic",',
             "test_environments.py::test_a_strict_model_is_built_in_its_sandbox_with_the_network"),
    Mutation("T53", "environments.py", "        parts.append(str(spec.root.resolve()))", "        pass",
             "test_environments.py::test_two_models_whose_requirements_lead_to_files_share_no_environment"),
    Mutation("T55", "runners/child.py", "(clear_away, self._tmp)", "(shutil.rmtree, self._tmp, ignore_errors=True)",
             "runners/test_sandbox.py::test_a_worker_ends_though_it_leaves_directories_deeper_than_anybody_recurses"),
    Mutation("T54", "cli/serve.py", "    memory.hide()", "    pass",
             "security/test_operators.py::test_the_gateway_leaves_no_core_and_is_not_traced"),
    Mutation("T54", "cli/serve.py", "    memory.leave_no_core()", "    pass",
             "security/test_operators.py::test_the_gateway_leaves_no_core_and_is_not_traced"),
    Mutation("T24", "runners/process.py", "for call, ended in calls.values():", "for call, ended in ():",
             "runners/test_process_end.py::test_a_killed_worker_ends_every_call_on_it_and_says_how_it_died"),
    Mutation("T25", "keeper.py", "async with asyncio.timeout(limit):", "async with asyncio.timeout(None):",
             "runners/test_process_load.py::test_a_load_over_its_limit_fails_its_model_with_the_reason"),
    Mutation("T25", "deadlines.py", "elif silence > SILENT and", "elif False and",
             "test_hosted.py::test_a_silent_worker_with_a_call_beyond_its_limit_is_killed_without_grace"),
    Mutation("T26", "runners/reaper.py", "os.killpg(leader, signal.SIGKILL)", "pass",
             "runners/test_reaper.py::test_when_the_pipe_closes_the_groups_that_are_left_are_ended"),
    Mutation("T26", "worker/sandbox.py", "libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)", "pass",
             "runners/test_sandbox.py::test_every_worker_is_kept_from_accidents"),
    Mutation("T27", "worker/failures.py", "    if is_out_of_memory(error):\n", "    if False:\n",
             "worker/test_failures.py::test_a_lack_of_device_memory_is_503_and_the_worker_goes_on"),
    Mutation("T28", "worker/window.py", "self._sent - self._granted < WINDOW_ITEMS", "True",
             "runners/test_process.py::test_a_reader_that_does_not_take_stops_the_model_within_one_window"),
    Mutation("T28", "http/protocol.py", "call_later(self.send_timeout,", "call_later(1e9,",
             "e2e/test_clumsy_clients.py::test_a_reader_that_never_reads_is_cut_off_and_its_model_freed"),
    Mutation("T29", "http/sse.py", "ping=PING_INTERVAL", "ping=10**6",
             "http/test_sse.py::test_a_silent_stream_is_kept_alive_by_comments"),
    Mutation("T30", "http/serving.py", "            yield _failure(exchange, encoder, error)\n", "            pass\n",
             "http/test_sse.py::test_an_error_after_it_is_the_last_event_and_the_response_ends_well"),
    Mutation("T31", "logs.py", "if self._size + len(line) > MAX_QUEUED:", "if False:",
             "test_logs.py::test_a_log_that_nobody_reads_holds_up_nothing_and_what_was_lost_is_counted"),
    Mutation("T31", "sockets.py", "except OSError as error:\n        raise ConfigError(f\"admin socket",
             "except KeyError as error:\n        raise ConfigError(f\"admin socket",
             "security/test_breakage.py::test_a_gateway_with_nowhere_to_write_serves"),
    Mutation("T32", "worker/sandbox.py", "resource.setrlimit(resource.RLIMIT_DATA, (most, most))", "pass",
             "runners/test_sandbox.py::test_a_model_over_its_memory_limit_fails_that_call_and_its_worker_goes_on"),
    Mutation("T33", "limiter.py", "hand it to the next in line.\"\"\"\n        seat.used -= 1\n",
             "hand it to the next in line.\"\"\"\n",
             "test_limiter.py::test_slots_go_first_come_first_served"),
    Mutation("T33", "access.py", "    def give_back(self) -> None:\n        self.running -= 1",
             "    def give_back(self) -> None:\n        pass",
             "http/test_scopes.py::test_calls_at_once_are_given_back_however_they_end"),
    Mutation("T34", "plugins.py", "if not is_free(endpoint.path):", "if False:",
             "security/test_breakage.py::test_no_plugin_takes_a_path_that_is_the_gateways"),
    Mutation("T34", "plugins.py", "except (Exception, SystemExit) as error:", "except Exception as error:",
             "security/test_breakage.py::test_a_broken_plugin_is_told_and_harms_no_model"),
    Mutation("T57", "runners/log.py", "        if self._left <= 0:\n", "        if False:\n",
             "runners/test_log.py::test_of_a_flood_the_beginning_and_the_end_are_shown_and_the_rest_is_counted"),
    Mutation("T57", "runners/log.py", "self._left -= 1 + size // 256", "self._left -= 1",
             "runners/test_log.py::test_long_lines_cost_more"),
    Mutation("T57", "runners/log.py", "                    await asyncio.sleep(0)\n", "",
             "runners/test_log.py::test_a_flood_leaves_others_their_turn"),
    Mutation("T57", "runners/log.py", '.partition(b"\\n")[2]  # its first line is cut', "",
             "runners/test_log.py::test_no_part_of_a_secret_is_shown_of_what_was_dropped"),
    Mutation("T57", "runners/log.py", "            self._budget.owe(len(raw))\n", "",
             "runners/test_log.py::test_who_prints_a_little_often_has_no_more_than_who_prints_much_at_once"),
    Mutation("T23", "runners/log.py", "self._redact_cut(text) if len(raw) > 2 * MAX_LINE else ", "",
             "runners/test_log.py::test_of_a_secret_that_a_line_is_cut_in_nothing_is_shown"),
    Mutation("T53", "environments.py", " and not ARCHIVE.search(wanted.name)", "",
             "test_environments.py::test_two_models_whose_requirements_lead_to_files_share_no_environment"),
    Mutation("T53", "environments.py", "    if found or not all", "    if not all",
             "test_environments.py::test_two_models_whose_settings_of_uv_are_the_same_share_no_environment"),
    Mutation("T57", "environments.py", "            await printed.drain(process.stdout)\n",
             "            async for raw in process.stdout:\n                printed.line(raw)\n",
             "test_environments.py::test_a_build_that_prints_without_end_is_read_as_a_model_is"),
    Mutation("T58", "call.py", "if messages > self.unread or size > self.unread_size:", "if False:",
             "runners/test_frames.py::test_a_credit_beyond_what_is_outstanding_ends_the_worker"),
    Mutation("T58", "wire.py", "if not CONTENT_TYPE.fullmatch(head.content_type):", "if False:",
             "runners/test_frames.py::test_a_head_that_would_forge_or_split_an_answer_ends_the_worker"),
    Mutation("T58", "wire.py", "if not head.raw and head.status != 200:", "if False:",
             "runners/test_frames.py::test_a_head_that_would_forge_or_split_an_answer_ends_the_worker"),
    Mutation("T58", "wire.py", "if len(data) != expected or not data:", "if len(data) != expected:",
             "runners/test_frames.py::test_an_array_with_a_dimension_of_none_ends_the_worker"),
    Mutation("T58", "call.py", "if self.size + self.owed_size >= WINDOW_BYTES and items:", "if False:",
             "runners/test_frames.py::test_items_are_weighed_as_well_as_counted"),
    Mutation("T58", "weighing.py", "            if kind not in _TEXTS:\n", "            if False:\n",
             "runners/test_frames.py::test_keys_that_can_be_made_to_collide_are_refused_before_they_are_compared"),
    Mutation("T58", "weighing.py", "if not steps or units > MAX_UNITS", "if False",
             "runners/test_frames.py::test_an_answer_of_nothing_but_little_things_is_refused_without_decoding_it"),
    Mutation("T58", "channel.py", "self._limits.get(kind, MAX_FRAME)", "self._max_pending",
             "runners/test_frames.py::test_a_payload_larger_than_its_kind_ends_the_worker_before_all_of_it_is_there"),
    Mutation("T58", "channel.py", "OF_A_SPLIT = 512", "OF_A_SPLIT = 0",
             "runners/test_frames.py::test_split_payloads_that_hold_nothing_take_no_memory"),
    Mutation("T58", "channel.py", "TURN = 256", "TURN = 1 << 30",
             "runners/test_frames.py::test_a_flood_of_small_frames_leaves_others_their_turn"),
    Mutation("T58", "wire.py", "__hash__ = None  # type: ignore[assignment]  # as above", "__hash__ = lambda self: 0",
             "runners/test_frames.py::test_keys_that_can_be_made_to_collide_are_refused_before_they_are_compared"),
    Mutation("T59", "http/hoisting.py", "            del found[\"$ref\"]\n", "            pass\n",
             "http/test_hoisting.py::test_whatever_a_model_says_every_reference_leads_somewhere"),
    Mutation("T59", "http/openapi.py", "if key not in self._rendered:", "if True:",
             "http/test_pages.py::test_a_recursive_schema_is_in_the_document_once_and_the_document_is_made_once"),
    Mutation("T59", "dialects/oip_schema.py", "    if next(steps, None) is None:\n", "    if depth > 6:\n",
             "http/test_hoisting.py::test_the_tensors_of_a_schema_that_recurses_are_found_in_few_steps"),
    Mutation("T59", "plain.py", "    _check_shown(value)\n", "",
             "runners/test_frames.py::test_capabilities_of_no_class_end_the_worker"),
    Mutation("T59", "http/model_series.py", "if len(lines) > MAX_LINES:", "if False:",
             "http/test_model_series.py::test_what_is_too_much_or_no_such_text_is_left_out_and_said"),
    Mutation("T59", "http/model_series.py", "timestamp=None, ", "",
             "http/test_model_series.py::test_a_time_that_a_model_makes_up_is_not_written"),
    Mutation("T59", "http/model_metrics.py", "await asyncio.to_thread(merge, texts)", "merge(texts)",
             "http/test_metrics.py::test_what_models_register_is_read_and_written_beside_the_loop"),
    Mutation("T59", "http/metrics.py", "if exchange.error in KNOWN_CODES else OTHER", "",
             "http/test_metrics.py::test_codes_that_a_model_makes_up_make_no_series"),
]  # fmt: skip


def main(rows: list[str]) -> int:
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as place:
        copy = Path(place)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        for mutation in MUTATIONS:
            if rows and mutation.row not in rows:
                continue
            verdict = try_one(copy, mutation)
            survivors += verdict != "caught"
            print(f"{mutation.row:<4} {verdict:<9} {mutation.file}: {mutation.test}", flush=True)
    print(f"{survivors} not caught")
    return int(survivors > 0)


def try_one(copy: Path, mutation: Mutation) -> str:
    """`caught`, or what is wrong: the test passes without the protection, or fails with it, or there is none."""
    file = copy / "gateway" / mutation.file
    text = file.read_text()
    if text.count(mutation.old) != 1:
        return f"{text.count(mutation.old)} places"
    file.write_text(text.replace(mutation.old, mutation.new))
    try:
        if passes(copy, mutation.test):
            return "SURVIVED"
    finally:
        file.write_text(text)
    return "caught" if passes(copy, mutation.test) else "broken"


def passes(copy: Path, test: str) -> bool:
    path = os.pathsep.join((str(copy), str(copy / "plugins")))
    # By a thread, which ends the process: what a mutation makes hang may not hear a signal.
    options = ["--timeout=60", "--timeout-method=thread", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", *options, f"tests/{test}"]
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=env, capture_output=True, timeout=300).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
