/* niti bench timeline: a training step, operation by operation, as the device's clock sees it. The step is enqueued whole, with
 * the time noted between its operations; each figure is the median of several steps. What noting costs is measured too and taken
 * off. */
#include <inttypes.h>
#include <stdlib.h>

#include "bench.h"

enum { STEPS = 21, WARM_UP = 3, NAME_ROOM = NITI_NAME_MAX + 16 };

typedef struct Row {
  char name[NAME_ROOM];
  int64_t nanoseconds[STEPS], median;
} Row;

typedef struct Timeline {
  Bench *bench;
  Row *rows;
  int count, room;
  int64_t *marks; /* backend memory, [room + 1]: before the first row and after each */
} Timeline;

static void note(Timeline *t, const char *name, const char *what) {
  Row *row = &t->rows[t->count++];
  (void)snprintf(row->name, sizeof row->name, "%s%s", name, what);
  t->bench->backend->ops->mark(t->bench->backend, t->marks + t->count);
}

/* The first row is a mark alone. */
static void enqueue(Timeline *t) {
  Bench *b = t->bench;
  NitiNetwork *net = b->net;
  const NitiBackendOps *ops = b->backend->ops;
  int32_t fork = 0;
  t->count = 0;
  ops->mark(b->backend, t->marks);
  note(t, "mark", "");
  niti_feed_input(b->feed, net);
  note(t, "input", "");
  for (int32_t i = 1; i <= net->plan->count; ++i) {
    NitiNode *node = &net->plan->nodes[i];
    node->spec.type->forward(node, b->backend);
    note(t, node->spec.name, " forward");
  }
  ops->loss(b->backend, &net->delta, b->metrics, &net->logits, niti_feed_labels(b->feed), b->recipe->loss, &net->loss_rq);
  note(t, "loss", "");
  for (int32_t i = net->plan->count; i >= 1; --i) {
    niti_network_backward_node(net, i, &fork);
    note(t, net->plan->nodes[i].spec.name, " backward");
  }
  for (int32_t i = 0; i < niti_network_weight_count(net); ++i) {
    NitiNode *node = niti_network_weight_node(net, i);
    ops->update_niti(b->backend, &node->weight, &node->gradient, niti_recipe_mu(b->recipe, 0));
    note(t, node->spec.name, " update");
  }
}

static int by_value(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

static NitiStatus fill_rows(Timeline *t) {
  const Bench *b = t->bench;
  const NitiBackendOps *ops = b->backend->ops;
  int64_t *marks = malloc(((size_t)t->room + 1) * sizeof *marks);
  if (!marks) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a time line");
  for (int step = 0; step < WARM_UP + STEPS; ++step) {
    enqueue(t);
    ops->download(b->backend, marks, t->marks, ((size_t)t->count + 1) * sizeof *marks);
    for (int i = 0; i < t->count && step >= WARM_UP; ++i) t->rows[i].nanoseconds[step - WARM_UP] = marks[i + 1] - marks[i];
  }
  free(marks);
  for (int i = 0; i < t->count; ++i) {
    Row *row = &t->rows[i];
    qsort(row->nanoseconds, STEPS, sizeof *row->nanoseconds, by_value);
    row->median = row->nanoseconds[STEPS / 2] - (i > 0 ? t->rows[0].median : 0);
    if (row->median < 0) row->median = 0;
  }
  return ops->synchronise(b->backend);
}

static int print_rows(const Timeline *t, const char *model, bool json) {
  const Bench *b = t->bench;
  int64_t total = 0, begin = 0;
  json_t *rows = json_array();
  for (int i = 1; i < t->count; ++i) total += t->rows[i].median;
  if (!json) {
    printf("%s, batch %d, %s\n", model, b->recipe->batch, b->backend->ops->describe(b->backend));
    printf("%-28s %12s %12s\n", "operation", "begins, us", "takes, us");
  }
  for (int i = 1; i < t->count; begin += t->rows[i++].median) {
    const Row *row = &t->rows[i];
    if (json) {
      json_array_append_new(rows, json_pack("{s:s, s:I, s:I}", "operation", row->name, "begin_nanoseconds", (json_int_t)begin,
                                            "nanoseconds", (json_int_t)row->median));
    } else if (row->median > 0) { /* not what costs nothing, such as a ReLU that the layer before has done */
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
  Timeline t = {.bench = b, .room = 3 + 2 * b->net->plan->count + niti_network_weight_count(b->net)};
  void *marks = NULL;
  int code = EXIT_OK;
  NitiStatus status = bench_step(b); /* brings the batch, and real values into every tensor */
  t.rows = calloc((size_t)t.room, sizeof *t.rows);
  if (status == NITI_OK && !t.rows) status = niti_fail(NITI_ERROR_MEMORY, "out of memory for a time line");
  if (status == NITI_OK) status = b->backend->ops->alloc(b->backend, &marks, ((size_t)t.room + 1) * sizeof *t.marks);
  t.marks = marks;
  if (status == NITI_OK) status = fill_rows(&t);
  code = status == NITI_OK ? print_rows(&t, model, json) : fail();
  if (marks) b->backend->ops->release(b->backend, marks);
  free(t.rows);
  return code;
}
