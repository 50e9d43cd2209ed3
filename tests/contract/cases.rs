//! The list of the cases, and the macro that makes a test of each.

pub use super::claims::*;
pub use super::leases::*;
pub use super::settles::*;

/// Makes a test of every case; `$test` is a macro that takes a case's name and makes its test.
macro_rules! for_each_case {
    ($test:ident) => {
        $test! { free_shards_are_granted_up_to_the_number_wanted }
        $test! { a_renewal_keeps_the_epochs }
        $test! { two_owners_share_the_ring }
        $test! { what_is_held_is_renewed_though_fewer_are_wanted }
        $test! { what_is_released_is_free_at_once_and_grows_its_epoch }
        $test! { a_release_under_an_old_epoch_changes_nothing }
        $test! { what_is_held_on_anew_grows_its_epoch_and_is_nobody_elses_between }
        $test! { what_has_run_out_is_held_on_anew_in_one_more_epoch }
        $test! { a_lease_with_a_write_under_way_is_renewed_until_it_can_be_given_up }
        $test! { an_expired_lease_goes_to_another_owner_under_a_new_epoch }
        $test! { ones_own_expired_lease_comes_back_under_a_new_epoch }
        $test! { a_lease_farther_ahead_than_it_lasts_is_cut_by_another_owner }
        $test! { who_wants_no_shards_keeps_its_own_and_does_not_count }
        $test! { who_leaves_holds_nothing_and_is_not_alive }
        $test! { entries_come_in_their_order_over_all_shards }
        $test! { entries_are_paged_without_gap_or_repetition }
        $test! { entries_are_of_the_shards_and_the_time_asked_for }
        $test! { a_claim_returns_the_whole_timer }
        $test! { a_claim_brings_each_namespace_its_own_secrets }
        $test! { a_claim_takes_only_what_is_there_and_due }
        $test! { a_claim_takes_the_newest_definition }
        $test! { a_claim_passes_by_a_held_row_and_says_so }
        $test! { a_key_named_twice_is_claimed_once }
        $test! { a_timer_claimed_before_is_gone }
        $test! { a_claim_under_an_old_epoch_changes_nothing }
        $test! { a_claim_by_another_owner_changes_nothing }
        $test! { a_claim_under_an_expired_lease_changes_nothing }
        $test! { a_claim_is_fenced_shard_by_shard }
        $test! { runs_of_older_epochs_are_adopted_once }
        $test! { runs_of_the_current_epoch_are_not_adopted }
        $test! { an_adoption_keeps_to_its_limit_and_its_shards }
        $test! { adoptions_are_counted_until_the_next_attempt }
        $test! { what_nobody_wants_any_more_is_told_at_its_adoption }
        $test! { an_adoption_is_fenced }
        $test! { a_success_is_written_in_place }
        $test! { a_failure_is_written_in_place }
        $test! { a_retry_puts_the_timer_back_and_logs_the_attempt }
        $test! { a_success_after_a_retry_keeps_the_count }
        $test! { a_reschedule_puts_the_timer_back_anew_and_logs_the_attempt }
        $test! { a_deferral_puts_the_timer_back_as_it_was }
        $test! { a_deferral_after_a_retry_keeps_the_count }
        $test! { an_end_without_an_attempt_counts_none }
        $test! { a_newer_timer_wins_over_a_deferral }
        $test! { a_second_settle_is_not_written }
        $test! { a_settle_under_an_old_epoch_changes_nothing }
        $test! { a_settle_under_an_expired_lease_changes_nothing }
        $test! { an_adopted_run_is_settled_by_its_new_owner_alone }
        $test! { a_newer_timer_wins_over_a_retry }
        $test! { a_newer_timer_that_was_deleted_takes_the_older_one_along }
        $test! { a_newer_timer_wins_over_a_reschedule_also_when_it_was_claimed }
        $test! { of_two_retries_of_one_id_the_newer_stays }
        $test! { settles_are_answered_in_their_order }
    };
}

pub(crate) use for_each_case;
