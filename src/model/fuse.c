/* What a plan saves: a ReLU's forward in the layer before it, its backward in the layer behind it, and exponents and copies of
 * nodes that hand a tensor on unchanged in the same memory. None of it changes a bit of any result. */
#include "model/plan.h"

static bool is_relu(const NitiNode *node) { return node->spec.type == &niti_layer_relu; }

void niti_plan_gate(NitiPlan *plan, const int32_t *consumers) {
  if (!plan->training) return;
  for (int32_t i = 1; i <= plan->count; ++i) {
    NitiNode *node = &plan->nodes[i];
    const int32_t from = node->inputs[0];
    if (from == 0 || !is_relu(&plan->nodes[from]) || consumers[from] != 1 || !plan->active[from]) continue;
    if (node->spec.type->gate) node->gate = node->spec.type->gate(node);
    plan->nodes[from].gated = node->gate != NITI_GATE_NONE;
  }
}

static bool shares_act(const NitiPlan *plan, int32_t i) {
  return plan->act[i].offset == plan->act[plan->nodes[i].inputs[0]].offset; /* both live while the node runs */
}

/* Backward leaves dx[0] in dy's memory as it is, and nothing is added there. */
static bool hands_delta_on(const NitiPlan *plan, const int32_t *consumers, int32_t i) {
  const NitiNode *node = &plan->nodes[i];
  const int32_t from = node->inputs[0];
  return plan->delta[i].offset >= 0 && plan->delta[i].offset == plan->delta[from].offset && consumers[from] == 1;
}

/* A ReLU right behind a layer that can apply it, in the same memory, costs nothing. */
static void fuse_forward(NitiPlan *plan) {
  for (int32_t i = 1; i <= plan->count; ++i) {
    NitiNode *node = &plan->nodes[i];
    if (!is_relu(node) || node->inputs[0] == 0) continue;
    NitiNode *before = &plan->nodes[node->inputs[0]];
    if (before->spec.type->fuses_relu && shares_act(plan, i)) before->fused_relu = node->fused_relu = true;
  }
}

/* In the order of forward: a node that keeps its input's exponent and memory has no exponent of its own. */
static void link_acts(NitiPlan *plan) {
  for (int32_t i = 0; i <= plan->count; ++i) {
    const bool shares = i > 0 && plan->nodes[i].spec.type->keeps_exponent && shares_act(plan, i);
    plan->links[i].act_exponent = shares ? plan->links[plan->nodes[i].inputs[0]].act_exponent : i;
  }
  for (int32_t i = plan->count; i >= 1; --i) { /* operands, against it: who writes the tensor last must know */
    const NitiNode *node = &plan->nodes[i];
    NitiLink *input = &plan->links[node->inputs[0]];
    const bool unchanged = node->spec.type->keeps_exponent && shares_act(plan, i) && (!is_relu(node) || node->fused_relu);
    if (node->spec.type->weight_shape || (unchanged && plan->links[i].act_operand)) input->act_operand = plan->training;
  }
}

static void link_deltas(NitiPlan *plan, const int32_t *consumers) {
  for (int32_t i = 0; i <= plan->count; ++i) {
    plan->links[i].delta_exponent = i;
    plan->links[i].forks = consumers[i] > 1;
  }
  for (int32_t i = plan->count; i >= 1; --i) {
    const NitiLayerType *type = plan->nodes[i].spec.type;
    if ((type->keeps_exponent || type->passes_delta) && hands_delta_on(plan, consumers, i))
      plan->links[plan->nodes[i].inputs[0]].delta_exponent = plan->links[i].delta_exponent;
  }
  for (int32_t i = 1; i <= plan->count; ++i) {
    const NitiNode *node = &plan->nodes[i];
    const NitiLayerType *type = node->spec.type;
    const bool unchanged = (type->keeps_exponent || type->passes_delta) && (!is_relu(node) || node->gated);
    const bool handed_on = unchanged && hands_delta_on(plan, consumers, i) && plan->links[node->inputs[0]].delta_operand;
    plan->links[i].delta_operand = plan->training && (type->weight_shape || handed_on);
    /* the first weights' error goes nowhere else */
    plan->links[i].delta_only_operand =
        plan->training &&
        (type->weight_shape ? !plan->active[node->inputs[0]] : handed_on && plan->links[node->inputs[0]].delta_only_operand);
  }
}

void niti_plan_fuse(NitiPlan *plan, const int32_t *consumers) {
  fuse_forward(plan);
  link_acts(plan);
  link_deltas(plan, consumers);
}
