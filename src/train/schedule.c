/* Positions and schedules: reading, writing, and the value of a step. docs/recipe-reference.md has the format. */
#include "train/schedule.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const units[] = {"epoch", "step", "at"};
enum { EPOCHS_MAX = 1000000 };

/* ---- positions ---- */

NitiStatus niti_position_read(NitiPosition *out, const NitiYaml *mapping, const char *what) {
  static const uint64_t most[] = {EPOCHS_MAX, UINT32_MAX};
  const NitiYaml *node = NULL;
  char name[96];
  uint64_t count = 0;
  int32_t share = 0;
  for (int i = 0; i < 3; ++i) {
    const NitiYaml *found = niti_yaml_get(mapping, units[i]);
    if (found && node) return niti_yaml_fail(found, "%s: a second position (expected one of epoch, step and at)", what);
    if (!found) continue;
    node = found;
    out->unit = (NitiPositionUnit)i;
  }
  if (!node) return niti_yaml_fail(mapping, "%s: missing key 'epoch', 'step' or 'at'", what);
  (void)snprintf(name, sizeof name, "%s: %s", what, units[out->unit]);
  if (out->unit == NITI_POSITION_SHARE)
    NITI_TRY(niti_yaml_share(&share, node, name, 0, NITI_WHOLE_SHARE));
  else
    NITI_TRY(niti_yaml_uint64(&count, node, name, most[out->unit]));
  out->value = out->unit == NITI_POSITION_SHARE ? share : (int64_t)count;
  return NITI_OK;
}

static const char *format_value(char buffer[NITI_POSITION_MAX], NitiPosition at) {
  const int64_t percent = at.value / 10000, rest = at.value % 10000;
  if (at.unit != NITI_POSITION_SHARE)
    (void)snprintf(buffer, NITI_POSITION_MAX, "%" PRId64, at.value);
  else if (rest == 0)
    (void)snprintf(buffer, NITI_POSITION_MAX, "%" PRId64 "%%", percent);
  else
    (void)snprintf(buffer, NITI_POSITION_MAX, "%" PRId64 ".%04" PRId64 "%%", percent, rest);
  return buffer;
}

void niti_position_put(NitiYamlDocument *document, NitiYaml *mapping, NitiPosition at) {
  char value[NITI_POSITION_MAX];
  niti_yaml_put(document, mapping, units[at.unit], niti_yaml_scalar(document, format_value(value, at)));
}

const char *niti_position_text(char buffer[NITI_POSITION_MAX], NitiPosition at) {
  char value[NITI_POSITION_MAX];
  (void)snprintf(buffer, NITI_POSITION_MAX, "%s %.23s", units[at.unit], format_value(value, at));
  return buffer;
}

int64_t niti_position_step(NitiPosition at, int64_t steps_per_epoch, int64_t steps) {
  if (at.unit == NITI_POSITION_EPOCH) return at.value * steps_per_epoch;
  return at.unit == NITI_POSITION_STEP ? at.value : at.value * steps / NITI_WHOLE_SHARE;
}

int64_t niti_step_at_share(int32_t millionths, int64_t steps) {
  if (millionths < 0 || millionths > NITI_WHOLE_SHARE || steps < 0 || steps > UINT32_MAX) return 0;
  return niti_position_step((NitiPosition){NITI_POSITION_SHARE, millionths}, 0, steps);
}

/* ---- schedules ---- */

/* `before` NULL: the first point. */
static NitiStatus read_point(NitiSchedulePoint *out, const NitiYaml *item, const char *what, const char *key, int places,
                             int64_t max, const NitiSchedulePoint *before) {
  const char *const keys[] = {"epoch", "step", "at", key, NULL};
  char now[NITI_POSITION_MAX], then[NITI_POSITION_MAX], name[96];
  NitiYaml *node;
  NITI_TRY(niti_yaml_want_keys(item, what, keys));
  NITI_TRY(niti_position_read(&out->at, item, what));
  if (!before && out->at.value != 0)
    return niti_yaml_fail(item, "%s: the first position is %s (expected 0)", what, niti_position_text(now, out->at));
  if (before && out->at.unit == before->at.unit && out->at.value <= before->at.value)
    return niti_yaml_fail(item, "%s: %s after %s (expected ascending positions)", what, niti_position_text(now, out->at),
                          niti_position_text(then, before->at));
  NITI_TRY(niti_yaml_want(&node, item, what, key));
  (void)snprintf(name, sizeof name, "%s: %s", what, key);
  NITI_TRY(niti_yaml_decimal(&out->value, node, name, places, 0, max));
  out->step = before ? INT64_MAX : 0; /* not placed yet */
  return NITI_OK;
}

NitiStatus niti_schedule_read(NitiSchedule *out, const NitiYaml *node, const char *what, const char *key, int places,
                              int64_t max) {
  *out = (NitiSchedule){.count = 1};
  if (node->kind != NITI_YAML_SEQUENCE) return niti_yaml_decimal(&out->points[0].value, node, what, places, 0, max);
  if (node->count < 1 || node->count > NITI_SCHEDULE_MAX)
    return niti_yaml_fail(node, "%s: %zu positions (expected 1 to %d)", what, node->count, NITI_SCHEDULE_MAX);
  for (size_t i = 0; i < node->count; ++i)
    NITI_TRY(read_point(&out->points[i], node->items[i], what, key, places, max, i ? &out->points[i - 1] : NULL));
  out->count = (int32_t)node->count;
  return NITI_OK;
}

NitiYaml *niti_schedule_write(NitiYamlDocument *document, const NitiSchedule *schedule, const char *key, int places) {
  char text[32];
  NitiYaml *list = niti_yaml_sequence(document);
  for (int32_t i = 0; i < schedule->count; ++i) {
    NitiYaml *item = niti_yaml_mapping(document);
    niti_position_put(document, item, schedule->points[i].at);
    niti_yaml_decimal_text(text, sizeof text, schedule->points[i].value, places);
    niti_yaml_put(document, item, key, niti_yaml_scalar(document, text));
    niti_yaml_append(document, list, item);
  }
  return list;
}

NitiStatus niti_schedule_place(NitiSchedule *schedule, const char *what, int64_t steps_per_epoch, int64_t steps) {
  char now[NITI_POSITION_MAX], then[NITI_POSITION_MAX];
  for (int32_t i = 0; i < schedule->count; ++i) {
    NitiSchedulePoint *p = &schedule->points[i];
    p->step = niti_position_step(p->at, steps_per_epoch, steps);
    if (i == 0 || p->step >= p[-1].step) continue;
    return niti_fail(NITI_ERROR_ARGUMENT,
                     "%s: %s is step %" PRId64 " of this run, before %s at step %" PRId64 " (expected ascending positions)", what,
                     niti_position_text(now, p->at), p->step, niti_position_text(then, p[-1].at), p[-1].step);
  }
  return NITI_OK;
}

const NitiSchedulePoint *niti_schedule_same(const NitiSchedule *schedule, bool share) {
  for (int32_t i = 1; i < schedule->count; ++i) {
    const NitiSchedulePoint *p = &schedule->points[i];
    if (p->step == p[-1].step && (p->at.unit == NITI_POSITION_SHARE) == share) return p;
  }
  return NULL;
}

NitiStatus niti_schedule_check_distinct(const NitiSchedule *schedule, const char *what) {
  char now[NITI_POSITION_MAX], then[NITI_POSITION_MAX];
  const NitiSchedulePoint *p = niti_schedule_same(schedule, false);
  if (!p) return NITI_OK;
  return niti_fail(NITI_ERROR_ARGUMENT,
                   "%s: %s and %s are both step %" PRId64
                   " of this run, so that the first of them would never take effect "
                   "(expected ascending positions)",
                   what, niti_position_text(then, p[-1].at), niti_position_text(now, p->at), p->step);
}

int64_t niti_schedule_value(const NitiSchedule *schedule, int64_t step) {
  int64_t value = schedule->points[0].value;
  for (int32_t i = 1; i < schedule->count && schedule->points[i].step <= step; ++i) value = schedule->points[i].value;
  return value;
}

int32_t niti_schedule_unreached(const NitiSchedule *schedule, int64_t steps, NitiPosition *first) {
  int32_t count = 0;
  for (int32_t i = 0; i < schedule->count; ++i) {
    const NitiSchedulePoint *p = &schedule->points[i];
    if (p->step < steps) continue;
    if (count++ == 0) *first = p->at;
  }
  return count;
}

bool niti_schedule_has_share(const NitiSchedule *schedule) {
  for (int32_t i = 0; i < schedule->count; ++i) {
    if (schedule->points[i].at.unit == NITI_POSITION_SHARE && schedule->points[i].at.value > 0) return true;
  }
  return false;
}
