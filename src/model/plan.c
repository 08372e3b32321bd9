#include "model/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/bounds.h"
#include "model/lifetime.h"

/* Time runs 0 (input), 1 .. count (forward), count + 1 (loss), then backward of node i at 2 count + 2 - i. */
static int32_t time_of_loss(const NitiPlan *plan) { return plan->count + 1; }
static int32_t time_of_backward(const NitiPlan *plan, int32_t node) { return 2 * plan->count + 2 - node; }

static NitiStatus out_of_memory(void) { return niti_fail(NITI_ERROR_MEMORY, "out of memory for a network's plan"); }

static NitiStatus fail_at(const NitiDescription *description, const NitiLayerSpec *spec, const char *what) {
  return niti_fail(NITI_ERROR_MODEL, "%s:%d:%d: %s: %s", description->source, spec->line, spec->column, spec->name, what);
}

static NitiStatus make_nodes(NitiPlan *plan, const NitiDescription *description) {
  plan->nodes[0].index = 0;
  plan->nodes[0].out = description->input;
  plan->nodes[0].out.n = plan->batch;
  for (int32_t i = 1; i <= plan->count; ++i) {
    const NitiDescribedNode *described = &description->nodes[i - 1];
    NitiNode *node = &plan->nodes[i];
    node->spec = described->spec;
    node->index = i;
    node->input_count = described->input_count;
    const NitiLayerType *type = node->spec.type;
    node->y_positive = type->positive || type->keeps_positive;
    for (int k = 0; k < NITI_INPUTS_MAX; ++k) {
      node->inputs[k] = described->inputs[k];
      if (k >= node->input_count) continue;
      const NitiNode *from = &plan->nodes[node->inputs[k]];
      node->in[k] = from->out;
      node->x_positive[k] = from->y_positive;
      node->y_positive = node->y_positive && (type->positive || from->y_positive);
    }
    if (type->shape(&node->spec, node->in, &node->out) != NITI_OK) return fail_at(description, &node->spec, niti_error());
    if (type->weight_shape) type->weight_shape(&node->spec, node->in[0], &node->weight.shape);
    plan->active[i] = type->weight_shape != NULL;
    for (int k = 0; k < node->input_count; ++k) plan->active[i] = plan->active[i] || plan->active[node->inputs[k]];
  }
  return NITI_OK;
}

NitiNodeTerms niti_plan_terms(const NitiPlan *plan, int32_t index) {
  const NitiNode *node = &plan->nodes[index];
  NitiNodeTerms result = {0};
  if (!node->spec.type->terms) return result;
  int64_t forward = 0, backward = 0, gradient = 0;
  node->spec.type->terms(node, &forward, &backward, &gradient);
  const bool sends = plan->training && plan->active[index] && node->input_count > 0 && plan->active[node->inputs[0]];
  result.terms = sends && backward > forward ? backward : forward;
  if (result.terms > 0) result.headroom_bits = niti_bound_headroom(result.terms);
  if (gradient > 0) result.gradient_bits = gradient <= NITI_MAX_TERMS ? 32 : 64;
  return result;
}

/* A random word's index has 34 bits. */
static NitiStatus check_counts(const NitiPlan *plan, const NitiDescription *description) {
  for (int32_t i = 1; i <= plan->count; ++i) {
    const size_t count = niti_shape_count(plan->nodes[i].out);
    const NitiLayerSpec *spec = &plan->nodes[i].spec;
    if (count > (size_t)1 << 34) {
      return niti_fail(NITI_ERROR_MODEL, "%s:%d:%d: %s: %zu values in a batch of %d images (expected at most 2^34)",
                       description->source, spec->line, spec->column, spec->name, count, plan->batch);
    }
  }
  return NITI_OK;
}

/* Products of mantissas are at most 127^2: more than NITI_MAX_TERMS of them could leave int32. */
static NitiStatus prove_exact(const NitiPlan *plan, const NitiDescription *description) {
  for (int32_t i = 1; i <= plan->count; ++i) {
    const NitiNodeTerms t = niti_plan_terms(plan, i);
    const NitiLayerSpec *spec = &plan->nodes[i].spec;
    if (t.terms > NITI_MAX_TERMS) {
      return niti_fail(NITI_ERROR_MODEL, "%s:%d:%d: %s: an accumulator of %lld terms could overflow int32 (expected at most %d)",
                       description->source, spec->line, spec->column, spec->name, (long long)t.terms, NITI_MAX_TERMS);
    }
  }
  return NITI_OK;
}

void niti_plan_consumers(const NitiPlan *plan, int32_t *consumers) {
  for (int32_t i = 0; i <= plan->count; ++i) consumers[i] = 0;
  for (int32_t i = 1; i <= plan->count; ++i) {
    for (int k = 0; k < plan->nodes[i].input_count; ++k) ++consumers[plan->nodes[i].inputs[k]];
  }
}

/* Only what a weight gradient may read takes more room than its elements. */
static size_t tensor_bytes(const NitiPlan *plan, const NitiBackend *backend, NitiShape shape) {
  return backend && plan->training ? backend->ops->tensor_bytes(backend, shape) : niti_shape_count(shape);
}

static void plan_acts(NitiPlan *plan, const NitiBackend *backend, NitiLifetimes *lives, const int32_t *consumers,
                      int32_t *act_life, int32_t *extra_life) {
  for (int32_t i = 0; i <= plan->count; ++i) {
    const NitiNode *node = &plan->nodes[i];
    const NitiLayerType *type = node->spec.type;
    plan->act[i].bytes = tensor_bytes(plan, backend, node->out);
    if (i > 0 && type->in_place && consumers[node->inputs[0]] == 1) {
      act_life[i] = act_life[node->inputs[0]];
      niti_lifetimes_use(lives, act_life[i], i);
    } else {
      act_life[i] = niti_lifetimes_add(lives, plan->act[i].bytes, i);
    }
    for (int k = 0; k < node->input_count; ++k) niti_lifetimes_use(lives, act_life[node->inputs[k]], i);
    if (i == plan->count) niti_lifetimes_use(lives, act_life[i], time_of_loss(plan));
    const bool backward = plan->training && plan->active[i];
    if (backward && ((type->needs_output && !node->gated) || node->gate == NITI_GATE_OUTPUT))
      niti_lifetimes_use(lives, act_life[i], time_of_backward(plan, i));
    if (backward && type->needs_input) niti_lifetimes_use(lives, act_life[node->inputs[0]], time_of_backward(plan, i));
    extra_life[i] = -1;
    if (i > 0 && type->extra_bytes) {
      plan->extra[i].bytes = type->extra_bytes(node);
      extra_life[i] = niti_lifetimes_add(lives, plan->extra[i].bytes, i);
      if (backward) niti_lifetimes_use(lives, extra_life[i], time_of_backward(plan, i));
    }
  }
}

/* Errors, from the last node to the first: the first consumer met writes a node's error, the others' are added to it. */
static void plan_deltas(NitiPlan *plan, NitiLifetimes *lives, int32_t *delta_life, int32_t *fork_life, int32_t *additions) {
  for (int32_t i = 0; i <= plan->count; ++i) delta_life[i] = -1;
  if (!plan->training || !plan->active[plan->count]) return;
  delta_life[plan->count] = niti_lifetimes_add(lives, plan->act[plan->count].bytes, time_of_loss(plan));
  for (int32_t i = plan->count; i >= 1; --i) {
    const NitiNode *node = &plan->nodes[i];
    const int32_t now = time_of_backward(plan, i);
    if (!plan->active[i] || delta_life[i] < 0) continue;
    niti_lifetimes_use(lives, delta_life[i], now);
    for (int k = 0; k < node->input_count; ++k) {
      const int32_t from = node->inputs[k];
      if (!plan->active[from]) continue;
      if (delta_life[from] < 0) {
        const bool share = k == 0 && (node->spec.type->in_place || node->spec.type->passes_delta);
        delta_life[from] = share ? delta_life[i] : niti_lifetimes_add(lives, plan->act[from].bytes, now);
        niti_lifetimes_use(lives, delta_life[from], now);
      } else {
        NitiForkEdge *edge = &plan->forks[plan->fork_count];
        *edge = (NitiForkEdge){.node = i, .slot = k, .addition = additions[from]++};
        edge->place.bytes = plan->act[from].bytes;
        fork_life[plan->fork_count++] = niti_lifetimes_add(lives, edge->place.bytes, now);
        niti_lifetimes_use(lives, delta_life[from], now);
      }
    }
  }
}

static NitiStatus place_all(NitiPlan *plan, const NitiBackend *backend) {
  const size_t n = (size_t)plan->count + 1;
  int32_t *scratch = calloc(6 * n + NITI_INPUTS_MAX * n, sizeof *scratch);
  NitiLifetimes *lives = niti_lifetimes_open(5 * n);
  NitiStatus status = scratch && lives ? NITI_OK : out_of_memory();
  if (status == NITI_OK) {
    int32_t *consumers = scratch, *act = scratch + n, *extra = scratch + 2 * n, *delta = scratch + 3 * n,
            *additions = scratch + 4 * n, *fork = scratch + 5 * n;
    niti_plan_consumers(plan, consumers);
    niti_plan_gate(plan, consumers);
    plan_acts(plan, backend, lives, consumers, act, extra);
    plan_deltas(plan, lives, delta, fork, additions);
    plan->arena_bytes = niti_lifetimes_place(lives, NITI_ALIGN);
    for (int32_t i = 0; i <= plan->count; ++i) {
      plan->act[i].offset = niti_lifetimes_offset(lives, act[i]);
      plan->extra[i].offset = niti_lifetimes_offset(lives, extra[i]);
      plan->delta[i].offset = niti_lifetimes_offset(lives, delta[i]);
      plan->delta[i].bytes = delta[i] < 0 ? 0 : plan->act[i].bytes;
    }
    for (int32_t f = 0; f < plan->fork_count; ++f) plan->forks[f].place.offset = niti_lifetimes_offset(lives, fork[f]);
    niti_plan_fuse(plan, consumers);
  }
  niti_lifetimes_close(lives);
  free(scratch);
  return status;
}

NitiStatus niti_plan_open(NitiPlan **out, const NitiDescription *description, const NitiBackend *backend, int32_t batch,
                          bool training) {
  *out = NULL;
  if (batch < 1 || batch > 1 << 20) return niti_fail(NITI_ERROR_ARGUMENT, "batch: %d is not in 1..%d", batch, 1 << 20);
  NitiPlan *plan = calloc(1, sizeof *plan);
  if (!plan) return out_of_memory();
  const size_t n = (size_t)description->node_count + 1;
  plan->count = description->node_count;
  plan->batch = batch;
  plan->training = training;
  plan->nodes = calloc(n, sizeof *plan->nodes);
  plan->act = calloc(n, sizeof *plan->act);
  plan->delta = calloc(n, sizeof *plan->delta);
  plan->extra = calloc(n, sizeof *plan->extra);
  plan->links = calloc(n, sizeof *plan->links);
  plan->active = calloc(n, sizeof *plan->active);
  plan->forks = calloc(n * NITI_INPUTS_MAX, sizeof *plan->forks);
  NitiStatus status = NITI_OK;
  if (!plan->nodes || !plan->act || !plan->delta || !plan->extra || !plan->links || !plan->active || !plan->forks)
    status = out_of_memory();
  if (status == NITI_OK) status = make_nodes(plan, description);
  if (status == NITI_OK) status = check_counts(plan, description);
  if (status == NITI_OK) status = prove_exact(plan, description);
  if (status == NITI_OK) status = place_all(plan, backend);
  if (status != NITI_OK) {
    niti_plan_close(plan);
    return status;
  }
  *out = plan;
  return NITI_OK;
}

void niti_plan_close(NitiPlan *plan) {
  if (!plan) return;
  free(plan->nodes);
  free(plan->act);
  free(plan->delta);
  free(plan->extra);
  free(plan->links);
  free(plan->active);
  free(plan->forks);
  free(plan);
}
