/* niti bench timeline: a training step, operation by operation, as the device's clock sees it. The step runs whole, with the time
 * noted between its operations, after weights are packed; each figure is the median of several steps. What noting costs is taken
 * off where the network has an operation that shows it. */
#include <inttypes.h>
#include <stdlib.h>

#include "bench.h"

enum { STEPS = 21, WARM_UP = 3, NAME_ROOM = NITI_NAME_MAX + 24 };

typedef struct Row {
  char name[NAME_ROOM];
  int64_t nanoseconds[STEPS], median;
} Row;

typedef struct Timeline {
  Bench *bench;
  Row *rows;
  int count;
  int64_t *marks; /* backend memory, [count + 1]: before the first row and after each */
} Timeline;

static int by_value(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

static NitiStatus run_steps(Timeline *t, int64_t *marks) {
  const Bench *b = t->bench;
  NitiBindings bindings = b->bindings;
  bindings.marks = t->marks;
  for (int step = 0; step < WARM_UP + STEPS; ++step) {
    NITI_TRY(niti_network_train(b->net, &bindings));
    b->backend->ops->download(b->backend, marks, t->marks, ((size_t)t->count + 1) * sizeof *marks);
    for (int i = 0; i < t->count && step >= WARM_UP; ++i) t->rows[i].nanoseconds[step - WARM_UP] = marks[i + 1] - marks[i];
  }
  return b->backend->ops->synchronise(b->backend);
}

static void name_rows(Timeline *t) {
  const NitiProgram *p = t->bench->net->program;
  for (int i = 0; i < t->count; ++i) {
    const NitiOperation *o = &p->operations[i];
    (void)snprintf(t->rows[i].name, NAME_ROOM, "%s%s%s", o->layer > 0 ? p->layers[o->layer] : "", o->layer > 0 ? " " : "",
                   niti_opcodes[o->opcode].name);
  }
}

/* An operation that a fused one does takes as long as its mark alone: that is taken off every row. A network without one keeps
 * it. */
static void take_medians(Timeline *t) {
  int64_t mark = INT64_MAX;
  for (int i = 0; i < t->count; ++i) {
    Row *row = &t->rows[i];
    qsort(row->nanoseconds, STEPS, sizeof *row->nanoseconds, by_value);
    row->median = row->nanoseconds[STEPS / 2];
    if (niti_executable_is_idle(t->bench->net->main, i) && row->median < mark) mark = row->median;
  }
  if (mark == INT64_MAX) mark = 0;
  for (int i = 0; i < t->count; ++i) {
    Row *row = &t->rows[i];
    const bool idle = niti_executable_is_idle(t->bench->net->main, i);
    row->median = idle ? 0 : row->median > mark ? row->median - mark : 1; /* 0: not shown */
  }
}

static NitiStatus fill_rows(Timeline *t) {
  int64_t *marks = malloc(((size_t)t->count + 1) * sizeof *marks);
  if (!marks) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a time line");
  const NitiStatus status = run_steps(t, marks);
  free(marks);
  name_rows(t);
  take_medians(t);
  return status;
}

static int print_rows(const Timeline *t, const char *model, bool json) {
  const Bench *b = t->bench;
  int64_t total = 0, begin = 0;
  json_t *rows = json_array();
  for (int i = 0; i < t->count; ++i) total += t->rows[i].median;
  if (!json) {
    printf("%s, batch %d, %s\n", model, b->recipe->batch, b->backend->ops->describe(b->backend));
    printf("%-28s %12s %12s\n", "operation", "begins, us", "takes, us");
  }
  for (int i = 0; i < t->count; begin += t->rows[i++].median) {
    const Row *row = &t->rows[i];
    if (json) {
      json_array_append_new(rows, json_pack("{s:s, s:I, s:I}", "operation", row->name, "begin_nanoseconds", (json_int_t)begin,
                                            "nanoseconds", (json_int_t)row->median));
    } else if (row->median > 0) { /* not a ReLU that the layer before applied */
      printf("%-28s %12.1f %12.1f %5.1f %%\n", row->name, (double)begin * 1e-3, (double)row->median * 1e-3,
             1e2 * (double)row->median / (double)(total > 0 ? total : 1));
    }
  }
  if (!json) {
    json_decref(rows);
    printf("%-28s %12.1f\n", "end", (double)begin * 1e-3);
    return EXIT_OK;
  }
  return print_json(json_pack("{s:s, s:o, s:i, s:s, s:I, s:o}", "bench", "timeline", "model", json_name(model), "batch",
                              b->recipe->batch, "device", b->backend->ops->describe(b->backend), "nanoseconds", (json_int_t)total,
                              "operations", rows));
}

int bench_timeline(Bench *b, const char *model, bool json) {
  Timeline t = {.bench = b, .count = b->net->program->operation_count};
  void *marks = NULL;
  NitiStatus status = bench_step(b); /* brings the batch, and real values into every tensor */
  t.rows = calloc((size_t)t.count, sizeof *t.rows);
  if (status == NITI_OK && !t.rows) status = niti_fail(NITI_ERROR_MEMORY, "out of memory for a time line");
  if (status == NITI_OK) status = b->backend->ops->alloc(b->backend, &marks, ((size_t)t.count + 1) * sizeof *t.marks);
  t.marks = marks;
  if (status == NITI_OK) status = fill_rows(&t);
  const int code = status == NITI_OK ? print_rows(&t, model, json) : fail();
  if (marks) b->backend->ops->release(b->backend, marks);
  free(t.rows);
  return code;
}
