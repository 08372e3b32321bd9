/* Trials of learning rates. */
#include "train/find_rate.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/wide.h"
#include "platform/clock.h"
#include "train/introduce.h"
#include "train/run.h"
#include "train/snapshot.h"

const char *niti_rate_setting(const NitiRecipe *recipe) { return recipe->optimizer->wide ? "update.lr" : "update.mu"; }

/* ---- one trial ---- */

typedef struct Search {
  NitiRun *run;
  const NitiRateSearch *how;
  int32_t trial, trials;
  int64_t images, nanoseconds;
} Search;

/* The run's recipe with another learning rate, placed in a run of the search's steps. */
static NitiStatus recipe_with(NitiRecipe **out, const Search *s, const char *value) {
  const NitiRecipe *base = s->run->recipe;
  char set[96];
  if ((size_t)snprintf(set, sizeof set, "%s=%s", niti_rate_setting(base), value) >= sizeof set)
    return niti_fail(NITI_ERROR_ARGUMENT, "'%.40s...' is too long for a learning rate", value);
  NITI_TRY(niti_recipe_parse(out, base->text, base->source, (const char *const[]){set}, 1, base->model->text));
  (*out)->rate.curve = NITI_RATE_STEPS; /* constant: no curve, no warm-up */
  (*out)->rate.warmup = (NitiPosition){0};
  const NitiStatus status = niti_recipe_place(*out, s->run->steps_per_epoch, s->how->steps);
  if (status == NITI_OK) return NITI_OK;
  niti_recipe_close(*out);
  *out = NULL;
  return status;
}

static bool tell(const Search *s, int64_t step) {
  if (!s->how->progress) return true;
  const NitiProgress progress = {.kind = NITI_PROGRESS_BATCH,
                                 .epoch = s->trial + 1,
                                 .epochs = s->trials,
                                 .batch = step,
                                 .batches = s->how->steps,
                                 .step = s->trial * s->how->steps + step,
                                 .steps = s->trials * s->how->steps,
                                 .images = s->images,
                                 .nanoseconds = s->nanoseconds,
                                 .epoch_left = -1,
                                 .run_left = -1};
  return s->how->progress(s->how->context, &progress);
}

static NitiStatus next_batch(NitiBatch *batch, NitiLoader *loader, int64_t step, int64_t steps_per_epoch) {
  if (step % steps_per_epoch == 0) NITI_TRY(niti_loader_start(loader, (uint32_t)(step / steps_per_epoch), 0));
  return niti_loader_next(loader, batch);
}

static NitiStatus take_score(NitiScore *out, const Search *s) {
  NitiMetrics sums, none = {0};
  NITI_TRY(niti_network_read_metrics(s->run->net, &sums));
  niti_network_write_metrics(s->run->net, &none);
  *out = (NitiScore){.loss = sums.loss, .correct = sums.correct, .images = sums.images};
  return NITI_OK;
}

static NitiStatus train(NitiRateTrial *trial, Search *s, const NitiRecipe *recipe) {
  const NitiStepContext context = {recipe, s->run->net, s->run->feed, NULL, NULL};
  NITI_TRY(take_score(&trial->first, s)); /* what the trial before left */
  for (int64_t step = 0; step < s->how->steps; ++step) {
    NitiBatch batch;
    const int64_t begin = niti_clock_now();
    if (step == s->how->steps / 2) NITI_TRY(take_score(&trial->first, s));
    NITI_TRY(next_batch(&batch, s->run->train_loader, step, s->run->steps_per_epoch));
    NITI_TRY(niti_step_train(&context, &batch, (uint32_t)step));
    s->images += batch.count;
    s->nanoseconds += niti_clock_now() - begin;
    if (!tell(s, step + 1)) return niti_fail(NITI_INTERRUPTED, "interrupted; nothing was written");
  }
  NITI_TRY(take_score(&trial->last, s));
  return niti_dataset_check_maps(s->run->dataset);
}

static NitiStatus count_saturated(NitiRateTrial *trial, const NitiNetwork *net) {
  for (int32_t i = 0; i < net->weight_count; ++i) {
    NitiTensorStats stats;
    if (niti_network_weight(net, i).dtype != NITI_DTYPE_S8) continue;
    NITI_TRY(niti_network_weight_stats(net, i, &stats));
    trial->saturated += stats.saturated;
    trial->all += stats.count;
  }
  return net->backend->ops->synchronise(net->backend);
}

static NitiStatus try_rate(NitiRateTrial *trial, Search *s, const NitiCheckpoint *begin) {
  NitiRecipe *recipe;
  *trial = (NitiRateTrial){.value = trial->value};
  NITI_TRY(recipe_with(&recipe, s, trial->value));
  NitiStatus status = niti_snapshot_restore(s->run->net, begin, "the initial weights");
  if (status == NITI_OK) status = train(trial, s, recipe);
  if (status == NITI_OK) status = count_saturated(trial, s->run->net);
  niti_recipe_close(recipe);
  return status;
}

/* ---- all ---- */

/* A wrong value is found before any is tried. */
static NitiStatus check_values(const Search *s, const NitiRateTrial *trials) {
  for (int32_t i = 0; i < s->trials; ++i) {
    NitiRecipe *recipe;
    NITI_TRY(recipe_with(&recipe, s, trials[i].value));
    niti_recipe_close(recipe);
  }
  return NITI_OK;
}

static NitiStatus try_all(NitiRateTrial *trials, Search *s) {
  NitiCheckpoint *begin;
  NITI_TRY(niti_network_init(s->run->net, s->run->recipe->seed));
  NITI_TRY(niti_checkpoint_open(&begin));
  NitiStatus status = niti_snapshot_take(begin, s->run->net);
  for (s->trial = 0; status == NITI_OK && s->trial < s->trials; ++s->trial) status = try_rate(&trials[s->trial], s, begin);
  niti_checkpoint_close(begin);
  return status;
}

static void introduce(const Search *s) {
  NitiRunFacts facts;
  if (!s->how->progress) return;
  niti_run_facts(&facts, s->run, "");
  const NitiProgress progress = {.kind = NITI_PROGRESS_START, .run = &facts, .epoch = 1, .epochs = s->trials};
  (void)s->how->progress(s->how->context, &progress);
}

static NitiStatus search_in(NitiRun *run, NitiRateTrial *trials, Search *s, const NitiRecipe *recipe) {
  NITI_TRY(niti_recipe_parse(&run->recipe, recipe->text, recipe->source, NULL, 0, recipe->model->text));
  NITI_TRY(niti_run_open(run, s->how->data));
  NITI_TRY(check_values(s, trials));
  introduce(s);
  return try_all(trials, s);
}

NitiStatus niti_find_rates(NitiRateTrial *trials, int32_t count, const NitiRecipe *recipe, const NitiRateSearch *how) {
  NitiRun run = {.options = {.device = how->device, .progress = how->progress, .context = how->context}};
  Search search = {.run = &run, .how = how, .trials = count};
  char why[1024];
  const NitiStatus status = search_in(&run, trials, &search, recipe);
  (void)snprintf(why, sizeof why, "%s", niti_error());
  const NitiStatus closed = niti_run_close(&run);
  return status == NITI_OK ? closed : niti_fail(status, "%s", why);
}

/* ---- the suggestion ---- */

/* Losses and counts are not negative. */
static bool lower(NitiScore a, NitiScore b) {
  const NitiWide left = niti_wide_product((uint64_t)a.loss, (uint64_t)b.images);
  return niti_wide_less(left, niti_wide_product((uint64_t)b.loss, (uint64_t)a.images));
}

/* As at an epoch's end: steps are larger than the weights can hold. */
static bool is_saturated(const NitiRateTrial *t) { return t->all > 0 && t->saturated >= t->all / 5; }

int32_t niti_rate_suggest(const NitiRateTrial *trials, int32_t count, int32_t classes) {
  const NitiScore guessing = {.loss = niti_log2((uint64_t)classes), .images = 1};
  int32_t best = -1;
  for (int32_t i = 0; i < count; ++i) {
    if (!lower(trials[i].last, guessing) || is_saturated(&trials[i])) continue;
    if (best < 0 || lower(trials[i].last, trials[best].last)) best = i;
  }
  return best;
}
