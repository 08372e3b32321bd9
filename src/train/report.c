/* Writes an epoch's figures as a log row and as TensorBoard events. */
#include "train/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/events.h"
#include "io/log.h"

enum { TAG_MAX = NITI_NAME_MAX + 32, LN2_MILLIONTHS = 693147, COLUMNS_MAX = 13 };

struct NitiReport {
  NitiLog *log;
  NitiEvents *events;
  bool on_validation;
};

NitiStatus niti_report_close(NitiReport *report) {
  if (!report) return NITI_OK;
  niti_log_close(report->log);
  const NitiStatus status = niti_events_close(report->events);
  free(report);
  return status;
}

/* A mean loss in nats as numerator and denominator: bits * 2^-16 * ln 2. */
static int64_t nats_numerator(NitiScore s) {
  const __int128 n = (__int128)s.loss * LN2_MILLIONTHS;
  return n > INT64_MAX ? INT64_MAX : n < INT64_MIN ? INT64_MIN : (int64_t)n;
}
static int64_t nats_denominator(NitiScore s) { return s.images * 65536 * 1000000; }

static NitiField loss_field(const char *key, NitiScore s) {
  return s.images > 0 ? niti_field_ratio(key, nats_numerator(s), nats_denominator(s), 6) : niti_field_none(key);
}

static NitiField accuracy_field(const char *key, NitiScore s) {
  return s.images > 0 ? niti_field_ratio(key, 100 * s.correct, s.images, 4) : niti_field_none(key);
}

/* Returns how many columns there are. */
static size_t make_row(NitiField fields[COLUMNS_MAX], const NitiReportRow *r, bool on_validation) {
  NitiField *f = fields;
  *f++ = niti_field_integer("epoch", r->epoch);
  *f++ = niti_field_integer("step", r->step);
  *f++ = niti_field_integer("mu", r->mu);
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
  *f++ = niti_field_ratio("seconds", r->nanoseconds / 1000000, 1000, 3);
  *f++ = niti_field_ratio("images_per_second", r->images * 1000000000, r->nanoseconds, 1);
  return (size_t)(f - fields);
}

static NitiStatus open_log(NitiLog **out, const char *folder, int32_t keep_epoch, bool on_validation) {
  NitiField fields[COLUMNS_MAX];
  const char *keys[COLUMNS_MAX];
  const size_t count = make_row(fields, &(NitiReportRow){0}, on_validation);
  for (size_t i = 0; i < count; ++i) keys[i] = fields[i].key;
  return niti_log_open(out, folder, keep_epoch, keys, count);
}

NitiStatus niti_report_open(NitiReport **out, const char *folder, int32_t keep_epoch, int64_t resumed_step, bool on_validation) {
  *out = NULL;
  NitiReport *report = calloc(1, sizeof *report);
  if (!report) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the run's report");
  report->on_validation = on_validation;
  NitiStatus status = open_log(&report->log, folder, keep_epoch, on_validation);
  if (status == NITI_OK) status = niti_events_open(&report->events, folder);
  if (status == NITI_OK && resumed_step >= 0) status = niti_events_start(report->events, resumed_step + 1);
  if (status != NITI_OK) {
    (void)niti_report_close(report);
    return status;
  }
  *out = report;
  return NITI_OK;
}

const char *niti_report_note(const NitiReport *report, size_t index) { return niti_log_note(report->log, index); }

static NitiStatus scalar(NitiReport *report, const char *group, const char *name, int64_t step, int64_t numerator,
                         int64_t denominator) {
  char tag[TAG_MAX];
  (void)snprintf(tag, sizeof tag, "%s/%s", group, name);
  return niti_events_ratio(report->events, tag, step, numerator, denominator);
}

static NitiStatus write_weight(NitiReport *report, int64_t step, const NitiNetwork *net, int32_t i,
                               const NitiTensorStats *input) {
  const char *name = niti_network_weight(net, i).layer;
  NitiTensorStats weight;
  char tag[TAG_MAX];
  NITI_TRY(niti_network_weight_stats(net, i, &weight));
  (void)snprintf(tag, sizeof tag, "weight/%s", name);
  NITI_TRY(niti_events_histogram(report->events, tag, step, weight.histogram, weight.exponent));
  NITI_TRY(scalar(report, "saturated_weight", name, step, weight.saturated, weight.count));
  NITI_TRY(scalar(report, "exponent_weight", name, step, weight.exponent, 1));
  if (!input) return NITI_OK;
  NITI_TRY(scalar(report, "saturated_input", name, step, input->saturated, input->count));
  return scalar(report, "exponent_input", name, step, input->exponent, 1);
}

/* The exponents of a program's tensors of one role, under their layers' names. Where deltas were added, the sum's. */
static NitiStatus write_exponents(NitiReport *report, int64_t step, NitiExecutable *e, NitiRole role, const char *group) {
  const NitiProgram *p = niti_executable_program(e);
  for (int32_t t = 0; t < p->tensor_count; ++t) {
    const NitiTensorDesc *tensor = &p->tensors[t];
    int32_t exponent = 0;
    bool last = tensor->role == role && tensor->layer > 0;
    for (int32_t k = t + 1; last && k < p->tensor_count; ++k)
      last = p->tensors[k].role != role || p->tensors[k].layer != tensor->layer;
    if (!last) continue;
    NITI_TRY(niti_executable_read(e, t, 0, NULL, &exponent));
    NITI_TRY(scalar(report, group, p->layers[tensor->layer], step, exponent, 1));
  }
  return NITI_OK;
}

/* The shifts of a phase's layers; sums of deltas belong to no layer. */
static NitiStatus write_shifts(NitiReport *report, int64_t step, NitiExecutable *e, NitiPhase phase, const char *group) {
  const NitiProgram *p = niti_executable_program(e);
  for (int32_t i = 0; i < p->operation_count; ++i) {
    const NitiOperation *o = &p->operations[i];
    int32_t shift = 0;
    if (o->phase != phase || !niti_opcodes[o->opcode].rounds || o->rounding.purpose == NITI_DRAW_FORK) continue;
    NITI_TRY(niti_executable_shift(e, i, &shift));
    NITI_TRY(scalar(report, group, p->layers[o->layer], step, shift, 1));
  }
  return NITI_OK;
}

/* Exponents and shifts of activations are those of the last batch scored, those of deltas the last training step's. */
static NitiStatus write_network(NitiReport *report, const NitiReportRow *r, NitiNetwork *net) {
  if (r->inputs) {
    NITI_TRY(write_exponents(report, r->step, net->evaluation, NITI_ROLE_ACTIVATION, "exponent_output"));
    NITI_TRY(write_shifts(report, r->step, net->evaluation, NITI_PHASE_FORWARD, "shift_forward"));
  }
  NITI_TRY(write_exponents(report, r->step, net->training, NITI_ROLE_DELTA, "exponent_error"));
  NITI_TRY(write_shifts(report, r->step, net->training, NITI_PHASE_BACKWARD, "shift_backward"));
  for (int32_t i = 0; i < net->weight_count; ++i)
    if (niti_network_weight(net, i).dtype == NITI_DTYPE_S8)
      NITI_TRY(write_weight(report, r->step, net, i, r->inputs ? &r->inputs[i] : NULL));
  return NITI_OK;
}

NitiStatus niti_report_epoch(NitiReport *report, const NitiReportRow *r, NitiNetwork *net) {
  NitiField fields[COLUMNS_MAX];
  NITI_TRY(niti_log_row(report->log, fields, make_row(fields, r, report->on_validation)));
  NITI_TRY(scalar(report, "loss", "train", r->step, nats_numerator(r->train), nats_denominator(r->train)));
  NITI_TRY(scalar(report, "loss", "test", r->step, nats_numerator(r->test), nats_denominator(r->test)));
  NITI_TRY(scalar(report, "loss", "validation", r->step, nats_numerator(r->validation), nats_denominator(r->validation)));
  NITI_TRY(scalar(report, "accuracy", "train", r->step, 100 * r->train.correct, r->train.images));
  NITI_TRY(scalar(report, "accuracy", "validation", r->step, 100 * r->validation.correct, r->validation.images));
  NITI_TRY(scalar(report, "accuracy", "best_test", r->step, 100 * r->best_test.correct, r->best_test.images));
  NITI_TRY(scalar(report, "accuracy", "test", r->step, 100 * r->test.correct, r->test.images));
  NITI_TRY(scalar(report, "accuracy", "best", r->step, 100 * r->best.correct, r->best.images));
  NITI_TRY(scalar(report, "update", "mu", r->step, r->mu, 1));
  NITI_TRY(scalar(report, "update", "epoch", r->step, r->epoch, 1));
  NITI_TRY(write_network(report, r, net));
  NITI_TRY(net->backend->ops->synchronise(net->backend)); /* else the values read are not valid */
  return niti_events_flush(report->events);
}
