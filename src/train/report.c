/* Writes a run's figures as rows of a log and as TensorBoard events. */
#include "train/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/scalar.h"
#include "base/wide.h"
#include "io/events.h"
#include "io/log.h"
#include "train/report_events.h"

enum { TAG_MAX = NITI_NAME_MAX + 32, LN2_MILLIONTHS = 693147, COLUMNS_MAX = 16 };

/* What is measured of each layer; the network's logits are those of layer 0. */
static const struct {
  const char *group;
  size_t offset;
} measured[] = {{"changed_weights", offsetof(NitiLayerCounts, changed)},
                {"zero_gradients", offsetof(NitiLayerCounts, zero_gradients)},
                {"dead_relu", offsetof(NitiLayerCounts, dead)},
                {"saturated_weight", offsetof(NitiLayerCounts, saturated_weights)},
                {"saturated_input", offsetof(NitiLayerCounts, saturated_inputs)},
                {"saturated_logits", offsetof(NitiLayerCounts, saturated_logits)}};
enum { MEASURED = sizeof measured / sizeof *measured };

struct NitiReport {
  NitiLog *log;
  NitiEvents *events;
  const NitiRecipe *recipe; /* borrowed */
  bool on_validation;
  bool (*seen)[MEASURED]; /* [layers]: whether a share was ever above 0; made by the first measured step */
};

NitiStatus niti_report_close(NitiReport *report, bool complete) {
  if (!report) return NITI_OK;
  niti_log_close(report->log);
  const NitiStatus ended = complete && report->events ? niti_events_success(report->events) : NITI_OK;
  const NitiStatus status = niti_events_close(report->events);
  free(report->seen);
  free(report);
  return ended != NITI_OK ? ended : status;
}

typedef struct Ratio {
  int64_t numerator, denominator;
} Ratio;

/* A mean loss in nats: bits * 2^-16 * ln 2. Where the exact ratio does not fit, in millionths, rounded down. */
static Ratio nats(NitiScore s) {
  const int64_t millionth = s.images * 65536;
  NitiWide n = niti_wide_product(niti_magnitude64(s.loss), LN2_MILLIONTHS);
  const bool fits = n.high == 0 && n.low <= INT64_MAX && millionth <= INT64_MAX / 1000000;
  const uint64_t quotient = fits ? n.low : niti_wide_divide(&n, (NitiWide){0, (uint64_t)millionth});
  const int64_t magnitude = quotient > INT64_MAX ? INT64_MAX : (int64_t)quotient;
  return (Ratio){s.loss < 0 ? -magnitude : magnitude, fits ? millionth * 1000000 : 1000000};
}

static NitiField loss_field(const char *key, NitiScore s) {
  if (s.images <= 0) return niti_field_none(key);
  const Ratio mean = nats(s);
  return niti_field_ratio(key, mean.numerator, mean.denominator, 6);
}

static NitiField accuracy_field(const char *key, NitiScore s) {
  return s.images > 0 ? niti_field_ratio(key, 100 * s.correct, s.images, 4) : niti_field_none(key);
}

static int64_t power_of_ten(int places) {
  int64_t power = 1;
  while (places-- > 0) power *= 10;
  return power;
}

/* Returns how many columns there are. */
static size_t make_row(NitiField fields[COLUMNS_MAX], const NitiReport *report, const NitiReportRow *r) {
  const bool on_validation = report->on_validation;
  const NitiLearningRate rate = niti_recipe_rate(report->recipe, r->step > 0 ? r->step - 1 : 0);
  NitiField *f = fields;
  *f++ = niti_field_integer("epoch", r->epoch);
  *f++ = niti_field_integer("step", r->step);
  *f++ = niti_field_ratio(rate.key, rate.value, power_of_ten(rate.places), rate.places);
  *f++ = loss_field("train_loss", r->train);
  *f++ = accuracy_field("train_accuracy", r->train);
  if (on_validation) {
    *f++ = loss_field("validation_loss", r->validation);
    *f++ = accuracy_field("validation_accuracy", r->validation);
    *f++ = accuracy_field("best_validation_accuracy", r->best);
  }
  *f++ = loss_field("test_loss", r->test);
  *f++ = accuracy_field("test_accuracy", r->test);
  *f++ = accuracy_field("best_test_accuracy", on_validation ? r->best_test : r->best);
  if (niti_averaging_on(&report->recipe->average)) {
    if (on_validation) *f++ = accuracy_field("averaged_validation_accuracy", r->averaged_validation);
    *f++ = loss_field("averaged_test_loss", r->averaged);
    *f++ = accuracy_field("averaged_test_accuracy", r->averaged);
  }
  *f++ = niti_field_ratio("seconds", r->nanoseconds / 1000000, 1000, 3);
  *f++ = niti_field_ratio("images_per_second", r->images * 1000000000, r->nanoseconds, 1);
  return (size_t)(f - fields);
}

static NitiStatus open_log(NitiReport *report, const char *folder, int32_t keep_epoch) {
  NitiField fields[COLUMNS_MAX];
  const char *keys[COLUMNS_MAX];
  const size_t count = make_row(fields, report, &(NitiReportRow){0});
  for (size_t i = 0; i < count; ++i) keys[i] = fields[i].key;
  return niti_log_open(&report->log, folder, keep_epoch, keys, count);
}

NitiStatus niti_report_open(NitiReport **out, const char *folder, const NitiRecipe *recipe, int32_t keep_epoch,
                            int64_t resumed_step, bool on_validation) {
  *out = NULL;
  NitiReport *report = calloc(1, sizeof *report);
  if (!report) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the run's report");
  report->recipe = recipe;
  report->on_validation = on_validation;
  NitiStatus status = open_log(report, folder, keep_epoch);
  if (status == NITI_OK) status = niti_events_open(&report->events, folder);
  if (status == NITI_OK && resumed_step >= 0) status = niti_events_start(report->events, resumed_step + 1);
  if (status != NITI_OK) {
    (void)niti_report_close(report, false);
    return status;
  }
  *out = report;
  return NITI_OK;
}

NitiStatus niti_report_recipe(NitiReport *report) { return niti_report_events_recipe(report->events, report->recipe); }

const char *niti_report_note(const NitiReport *report, size_t index) { return niti_log_note(report->log, index); }

static NitiStatus scalar(NitiReport *report, const char *group, const char *name, int64_t step, int64_t numerator,
                         int64_t denominator) {
  char tag[TAG_MAX];
  (void)snprintf(tag, sizeof tag, "%s/%s", group, name);
  return niti_events_ratio(report->events, tag, step, numerator, denominator);
}

/* ---- a step ---- */

static NitiStatus write_score(NitiReport *report, const char *name, int64_t step, NitiScore s) {
  const Ratio mean = nats(s);
  NITI_TRY(scalar(report, "loss", name, step, mean.numerator, mean.denominator));
  return scalar(report, "accuracy", name, step, 100 * s.correct, s.images);
}

/* A share that has been 0 ever since is not written: most are in a healthy network. */
static NitiStatus write_shares(NitiReport *report, const char *layer, int64_t step, const NitiLayerCounts *counts, bool *seen) {
  for (int i = 0; i < MEASURED; ++i) {
    const NitiShare *s = (const NitiShare *)(const void *)((const char *)counts + measured[i].offset);
    seen[i] = seen[i] || s->part > 0;
    if (seen[i]) NITI_TRY(scalar(report, measured[i].group, layer, step, 100 * s->part, s->whole));
  }
  return NITI_OK;
}

NitiStatus niti_report_step(NitiReport *report, const NitiStepRow *row, const NitiProgram *program) {
  const size_t layers = row->layers ? (size_t)program->layer_count + 1 : 0;
  const NitiLearningRate rate = niti_recipe_rate(report->recipe, row->step - 1);
  NITI_TRY(write_score(report, "train_steps", row->step, row->since));
  NITI_TRY(scalar(report, "update", rate.key, row->step, rate.value, power_of_ten(rate.places)));
  if (layers && !report->seen) report->seen = calloc(layers, sizeof *report->seen);
  if (layers && !report->seen) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the run's report");
  for (size_t i = 0; i < layers; ++i)
    NITI_TRY(write_shares(report, i ? program->layers[i] : "network", row->step, &row->layers[i], report->seen[i]));
  return niti_events_flush(report->events);
}

/* ---- an epoch ---- */

static NitiStatus write_weight(NitiReport *report, int64_t step, const NitiNetwork *net, int32_t i) {
  NitiTensorStats weight;
  char tag[TAG_MAX];
  NITI_TRY(niti_network_weight_stats(net, i, &weight));
  (void)snprintf(tag, sizeof tag, "weight/%s", niti_network_weight(net, i).layer);
  return niti_events_histogram(report->events, tag, step, weight.histogram, weight.exponent);
}

/* Whether an operation's shift and exponent are its own: others pass on their input's exponent, or add without overflow, and sums
 * of deltas belong to no layer. */
static bool has_shift(const NitiOperation *o) {
  if (!niti_opcodes[o->opcode].rounds || o->rounding.purpose == NITI_DRAW_FORK) return false;
  return o->opcode != NITI_OP_MAXPOOL_BACKWARD || !niti_pool_apart(&o->pool);
}

static NitiStatus write_rounding(NitiReport *report, int64_t step, NitiExecutable *e, NitiPhase phase, const char *exponents,
                                 const char *shifts) {
  const NitiProgram *p = niti_executable_program(e);
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    int32_t shift = 0, exponent = 0;
    if (o->phase != phase || !has_shift(o)) continue;
    NITI_TRY(niti_executable_shift(e, i, &shift));
    NITI_TRY(niti_executable_read(e, o->outputs[0], 0, NULL, &exponent));
    NITI_TRY(scalar(report, shifts, p->layers[o->layer], step, shift, 1));
    NITI_TRY(scalar(report, exponents, p->layers[o->layer], step, exponent, 1));
  }
  return NITI_OK;
}

/* Exponents and shifts of activations are those of the last batch scored, those of deltas the last training step's. */
static NitiStatus write_network(NitiReport *report, const NitiReportRow *r, NitiNetwork *net) {
  if (r->validation.images > 0 || r->test.images > 0)
    NITI_TRY(write_rounding(report, r->step, net->evaluation, NITI_PHASE_FORWARD, "exponent_output", "shift_forward"));
  NITI_TRY(write_rounding(report, r->step, net->training, NITI_PHASE_BACKWARD, "exponent_error", "shift_backward"));
  for (int32_t i = 0; i < net->weight_count; ++i)
    if (niti_network_weight(net, i).dtype == NITI_DTYPE_S8) NITI_TRY(write_weight(report, r->step, net, i));
  return NITI_OK;
}

NitiStatus niti_report_epoch(NitiReport *report, const NitiReportRow *r, NitiNetwork *net) {
  NitiField fields[COLUMNS_MAX];
  NITI_TRY(niti_log_row(report->log, fields, make_row(fields, report, r)));
  NITI_TRY(write_score(report, "train", r->step, r->train));
  NITI_TRY(write_score(report, "validation", r->step, r->validation));
  NITI_TRY(write_score(report, "test", r->step, r->test));
  NITI_TRY(scalar(report, "accuracy", "best_test", r->step, 100 * r->best_test.correct, r->best_test.images));
  NITI_TRY(scalar(report, "accuracy", "averaged_test", r->step, 100 * r->averaged.correct, r->averaged.images));
  NITI_TRY(scalar(report, "accuracy", "best", r->step, 100 * r->best.correct, r->best.images));
  NITI_TRY(write_network(report, r, net));
  if (r->confusion)
    NITI_TRY(niti_report_events_confusion(report->events, report->on_validation ? "validation" : "test", r->step, r->confusion));
  NITI_TRY(net->backend->ops->synchronise(net->backend)); /* else the values read are not valid */
  return niti_events_flush(report->events);
}
