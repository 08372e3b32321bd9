#include "train/warn.h"

#include <inttypes.h>
#include <stdio.h>

#include "train/find_rate.h"
#include "train/recipe_text.h"
#include "train/tell.h"

/* ---- settings ---- */

/* What the run will never do, since it ends before. */
static void warn_unreached(const NitiRun *run) {
  const NitiRecipe *recipe = run->recipe;
  char position[NITI_POSITION_MAX], share[NITI_POSITION_MAX], end[96];
  NitiPosition first = {0};
  const NitiSchedule *rates = recipe->optimizer->wide ? &recipe->rate.points : &recipe->mu;
  const int32_t unreached = niti_schedule_unreached(rates, run->steps, &first);
  (void)snprintf(end, sizeof end, "the run ends after %d epoch%s (step %" PRId64 ")", recipe->epochs,
                 recipe->epochs == 1 ? "" : "s", run->steps);
  if (run->steps < run->steps_per_epoch * recipe->epochs)
    (void)snprintf(end, sizeof end, "max_steps ends the run after step %" PRId64, run->steps);
  if (unreached > 0)
    niti_run_warn(run, "%s: %d of %d values never take effect, the first %s%s: %s", niti_rate_setting(recipe), unreached,
                  rates->count, first.unit == NITI_POSITION_SHARE ? "" : "at ", niti_position_text(position, first), end);
  const NitiSchedulePoint *same = niti_schedule_same(rates, true);
  if (same)
    niti_run_warn(run, "%s: the value of %s never takes effect: %s is step %" PRId64 " of this run, too",
                  niti_rate_setting(recipe), niti_position_text(position, same[-1].at), niti_position_text(share, same->at),
                  same->step);
  if (run->save_every > 0 && run->save_every * run->steps_per_epoch > run->steps)
    niti_run_warn(run, "save_every: no checkpoint of epoch %d will be kept: %s", run->save_every, end);
}

/* Deltas that are rounded with a bias: small ones vanish, all in the same direction. */
static void warn_rounding(const NitiRun *run) {
  const NitiRounding error = run->recipe->round_error;
  if (!run->recipe->optimizer->wide || error == NITI_STOCHASTIC || error == NITI_STOCHASTIC_BYTE) return;
  niti_run_warn(run, "rounding.error is %s, which biases the small deltas of update %s: set rounding.error=stochastic-byte",
                niti_recipe_roundings[error], run->recipe->optimizer->name);
}

/* Of one value a norm leaves nothing but its bias. */
static void warn_norms(const NitiRun *run) {
  const NitiProgram *program = run->net->program;
  for (int32_t i = 0; i < program->operation_count; ++i) {
    const NitiOperation *o = &program->operations[i];
    if (o->opcode != NITI_OP_NORM_FIT || o->norm.running || o->norm.positions * run->recipe->batch > 1) continue;
    niti_run_warn(
        run,
        "layer %s: a norm over one value per channel gives the same for every image, so nothing before it learns: raise batch",
        program->layers[o->layer]);
  }
}

void niti_run_warn_settings(const NitiRun *run) {
  warn_unreached(run);
  warn_rounding(run);
  warn_norms(run);
}

/* ---- the rate ---- */

void niti_run_describe_rate(char text[NITI_RATE_TEXT_MAX], const NitiRecipe *recipe, int64_t step) {
  const NitiLearningRate now = niti_recipe_rate(recipe, step);
  const int64_t given = recipe->optimizer->wide ? niti_schedule_value(&recipe->rate.points, step) : now.value;
  char own[32], last[32];
  niti_yaml_decimal_text(own, sizeof own, given, now.places);
  niti_yaml_decimal_text(last, sizeof last, now.value, now.places);
  const int used = snprintf(text, NITI_RATE_TEXT_MAX, "update.%s, which is %s", now.key, own);
  if (given != now.value)
    (void)snprintf(text + used, NITI_RATE_TEXT_MAX - (size_t)used, " and came to %s in the last step", last);
}

bool niti_run_rate_faded(const NitiRun *run, int32_t epoch) {
  const NitiRecipe *recipe = run->recipe;
  const int64_t first = (epoch - 1) * run->steps_per_epoch;
  return recipe->optimizer->wide && first >= recipe->rate.warm &&
         10 * niti_recipe_rate(recipe, first).value < niti_schedule_value(&recipe->rate.points, first);
}
