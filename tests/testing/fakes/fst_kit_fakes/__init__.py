"""Components for the contracts: good ones, and broken ones with the tests that must find them."""

from __future__ import annotations

import re

from fst_core import Component, hookimpl

FAKES = {
    "reader": {
        "GoodReader": (),
        "EmptyReader": ("test_every_split_has_documents",),
        "ShufflingReader": ("test_documents_are_the_same_each_time",),
        "ForgetfulReader": ("test_a_reading_may_be_left_halfway",),
        "BlankReader": ("test_no_document_is_empty",),
        "SourcelessReader": ("test_every_document_says_where_it_was_read",),
        "SurrogateReader": ("test_every_document_can_be_written_as_utf8",),
        "AddingReader": ("test_a_reading_is_reported",),
        "CountingFingerprintReader": ("test_the_fingerprint_is_stable",),
        "PathFingerprintReader": ("test_the_fingerprint_does_not_depend_on_the_place",),
        "ConstantFingerprintReader": ("test_the_fingerprint_changes_with_the_content",),
    },
    "tokenizer": {
        "GoodTokenizer": (),
        "LossyTokenizer": (),
        "ControlTokenizer": ("test_no_text_yields_a_control_id", "test_documents_are_framed"),
        "SmallVocabularyTokenizer": ("test_ids_lie_within_the_vocabulary",),
        "NumpyIdsTokenizer": ("test_ids_lie_within_the_vocabulary",),
        "SpaceForNothingTokenizer": ("test_no_text_has_no_ids",),
        "StrippingTokenizer": ("test_a_text_comes_back_as_it_was",),
        "NormalisingTokenizer": ("test_a_text_comes_back_as_it_was",),
        "StrictTokenizer": ("test_decoding_never_raises",),
        "SurrogateTokenizer": ("test_decoding_never_raises",),
        "ShowingTokenizer": ("test_control_ids_decode_to_nothing",),
        "Int64BatchTokenizer": ("test_a_batch_gives_what_its_texts_give_one_by_one",),
        "ListOffsetsTokenizer": ("test_a_batch_gives_what_its_texts_give_one_by_one",),
        "JoiningBatchTokenizer": ("test_a_batch_gives_what_its_texts_give_one_by_one",),
        "UnframedTokenizer": ("test_documents_are_framed",),
        "BoslessPromptTokenizer": ("test_a_prompt_begins_a_document",),
        "EndedPromptTokenizer": ("test_a_prompt_begins_a_document",),
        "SpacedDocumentsTokenizer": ("test_a_prompt_begins_a_document",),
        "ForgetfulTokenizer": ("test_saving_and_loading_change_nothing",),
        "AbsoluteTokenizer": ("test_saving_and_loading_change_nothing",),
        "CountingTokenizer": ("test_saving_writes_the_same_bytes_each_time",),
        "PicklingTokenizer": ("test_nothing_is_pickled",),
        "CrashingTokenizer": ("test_damage_is_told",),
        "RandomTokenizer": ("test_equal_texts_give_equal_tokenizers",),
        # what is wrong with any component
        "ZeroFormatTokenizer": ("test_provenance_leads_back_to_the_component",),
        "AbstractTokenizer": ("test_it_implements_its_interface",),
        "StrangeTokenizer": ("test_it_implements_its_interface",),
        "WordyTokenizer": ("test_the_summary_is_one_sentence",),
        "LaxTokenizer": ("test_unknown_settings_are_rejected",),
        "SilentTokenizer": ("test_every_setting_is_described",),
        "InfiniteTokenizer": ("test_settings_survive_json",),
    },
    "model": {
        "GoodModel": (),
        "CachelessModel": (),
        "WideModel": ("test_logits_have_a_number_for_each_id",),
        "ClairvoyantModel": ("test_no_position_sees_a_later_one", "test_no_row_sees_another"),
        "ForgetfulModel": ("test_no_position_sees_a_later_one",),
        "SociableModel": ("test_no_row_sees_another",),
        "IgnoresCacheModel": ("test_a_cache_changes_nothing",),
        "IgnoresPositionsModel": ("test_a_cache_serves_rows_of_unequal_length",),
        "IgnoresMaskModel": ("test_a_cache_serves_rows_of_unequal_length",),
        "BoastfulModel": ("test_a_sequence_of_context_length_passes",),
        "ReinventingModel": ("test_saving_and_loading_change_nothing",),
        "PicklingModel": ("test_nothing_is_pickled",),
        "CrashingModel": ("test_damage_is_told",),
        "UnseededModel": ("test_equal_seeds_give_equal_weights",),
        "FrozenModel": ("test_the_loss_on_one_batch_falls",),
        "HastyModel": ("test_optimise_keeps_the_function",),
        "MisinformedModel": ("test_a_configuration_knows_the_control_ids",),
    },
    "trainer": {
        "GoodTrainer": (),
        "IdleTrainer": ("test_the_module_is_fitted_in_place",),
        "CopyingTrainer": ("test_the_module_is_fitted_in_place",),
        "SilentTrainer": ("test_figures_are_finite",),
        "NanTrainer": ("test_figures_are_finite",),
        "BackwardsTrainer": ("test_figures_are_finite",),
        "UnseededTrainer": ("test_equal_seeds_give_equal_weights",),
        "TirelessTrainer": ("test_a_finished_run_ends_with_the_same_weights",),
        "ScribblingTrainer": ("test_the_dataset_is_not_changed",),
    },
    "sampler": {
        "GoodSampler": (),
        "HiddenSampler": ("test_equal_numbers_give_equal_ids",),
        "NeighbourlySampler": ("test_rows_are_independent",),
        "RevivingSampler": ("test_minus_infinity_is_never_drawn",),
        "ProhibitiveSampler": ("test_something_is_left_to_draw",),
        "BeyondSampler": ("test_ids_lie_within_the_vocabulary",),
        "ProudSampler": ("test_any_text_so_far_will_do",),
        "DeafSampler": ("test_a_rows_own_parameters_count",),
    },
    "evaluator": {
        "GoodEvaluator": (),
        "NanEvaluator": ("test_figures_are_finite_numbers_or_none",),
        "IntegerEvaluator": ("test_figures_are_finite_numbers_or_none",),
        "NothingEvaluator": ("test_figures_are_finite_numbers_or_none",),
        "RandomEvaluator": ("test_figures_are_the_same_each_time",),
        "LosslessEvaluator": ("test_a_lossy_tokenizer_is_no_error",),
        "TrainingEvaluator": ("test_nothing_is_changed",),
        "ScribblingEvaluator": ("test_nothing_is_changed",),
    },
    "engine": {
        "GoodEngine": (),
        "UndescribedEngine": ("test_it_describes_itself",),
        "CountingEngine": ("test_alone_equals_among_others", "test_seeds_decide"),
        "CachingEngine": ("test_alone_equals_among_others",),
        "SeedlessEngine": ("test_seeds_decide",),
        "SecondBestEngine": ("test_greedy_ids_are_the_modules_own",),
        "BoslessEngine": ("test_a_text_prompt_is_the_beginning_of_a_document",),
        "BosAddingEngine": ("test_a_text_prompt_is_the_beginning_of_a_document",),
        "ByteByByteEngine": ("test_chunks_joined_are_the_whole",),
        "ReasonedEngine": ("test_chunks_joined_are_the_whole",),
        "AtOnceEngine": ("test_chunks_joined_are_the_whole",),
        "LeakingEngine": ("test_stop_strings_end_the_text_and_never_show",),
        "UnstoppableEngine": ("test_stop_strings_end_the_text_and_never_show",),
        "EndlessEngine": ("test_the_end_of_a_document_ends_the_text",),
        "GenerousEngine": ("test_no_more_ids_are_generated_than_asked_for",),
        "TruncatingEngine": ("test_a_prompt_without_room_is_refused",),
        "LenientEngine": ("test_what_it_cannot_honour_is_refused_by_its_name",),
        "FragileEngine": ("test_a_faulty_request_fails_alone",),
        "DiligentEngine": ("test_a_closed_iterator_ends_its_request_and_no_other",),
        "CertainEngine": ("test_log_probabilities_are_the_modules_own",),
        "ModestEngine": (),
        "EvaluatingEngine": ("test_the_module_stays_as_it_was",),
        "GamblingEngine": ("test_the_module_stays_as_it_was",),
        "ImmortalEngine": ("test_a_closed_engine_refuses_requests",),
    },
    "executor": {
        "GoodExecutor": (),
        "FirstDoneExecutor": ("test_results_come_in_the_order_of_the_items",),
        "RepeatingExecutor": ("test_every_item_of_an_iterator_is_worked_on_once",),
        "NeedyExecutor": ("test_no_items_give_no_results",),
        "EagerExecutor": ("test_an_error_is_raised_in_its_place",),
        "OnceExecutor": ("test_it_can_be_used_again",),
    },
    "frontend": {
        "GoodFrontend": (),
        "AsciiFrontend": ("test_the_engines_text_comes_through",),
        "MortalFrontend": ("test_a_request_that_fails_does_not_end_it",),
        "RudeFrontend": ("test_answers_that_were_begun_are_finished",),
        "DeafFrontend": ("test_the_engines_text_comes_through",),
        "StubbornFrontend": ("test_it_leaves_when_cancelled_and_can_serve_again",),
        "LeavingBehindFrontend": ("test_it_leaves_when_cancelled_and_can_serve_again",),
    },
}
"""Of each kind: classes of the module `<kind>s`, and the tests that each must fail at least."""

_WITH_SETTINGS = {
    "LaxTokenizer", "SilentTokenizer", "InfiniteTokenizer", "GoodReader", "GoodTrainer",
}  # fmt: skip
_KINDS_WITH_SETTINGS = {"reader", "sampler", "frontend"}


def component_name(cls: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", cls).lower()


def _components(kind):
    for cls in FAKES[kind]:
        module = f"{__name__}.{kind}s"
        settings = f"{module}:{cls}.Settings"
        has = kind in _KINDS_WITH_SETTINGS or cls in _WITH_SETTINGS
        summary = "It says much. Too much." if cls.startswith("Wordy") else "Stands for another."
        yield Component(component_name(cls), f"{module}:{cls}", summary, settings if has else None)


for _kind in FAKES:
    globals()[f"fst_{_kind}s"] = hookimpl(lambda kind=_kind: _components(kind))
