/* Folds batch norm away in a description: in its nodes, to see whether it can be done, and in its text. */
#include "model/fold.h"

#include <stdio.h>
#include <string.h>

#include "model/description_yaml.h"

static bool is(const NitiDescribedNode *node, const char *type) { return strcmp(node->spec.type->name, type) == 0; }

static const NitiDescribedNode *node_of(const NitiDescription *d, int32_t number) { return &d->nodes[number - 1]; }

static int32_t readers(const NitiDescription *d, int32_t number) {
  int32_t count = 0;
  for (int32_t i = 0; i < d->node_count; ++i) {
    for (int k = 0; k < d->nodes[i].input_count; ++k) count += d->nodes[i].inputs[k] == number;
  }
  return count;
}

static bool takes_norm(const NitiDescription *d, int32_t number) {
  return number > 0 && (is(node_of(d, number), "conv") || is(node_of(d, number), "linear"));
}

int32_t niti_description_norm_after(const NitiDescription *d, int32_t number) {
  for (int32_t i = 1; i <= d->node_count && takes_norm(d, number); ++i) {
    if (is(node_of(d, i), "norm") && node_of(d, i)->inputs[0] == number) return readers(d, number) == 1 ? i : 0;
  }
  return 0;
}

static NitiStatus fail_at(const NitiDescription *d, int32_t number, const char *why, const char *what) {
  const NitiLayerSpec *spec = &node_of(d, number)->spec;
  return niti_fail(NITI_ERROR_MODEL,
                   "%s:%d:%d: %s cannot be folded: it follows %s%s (expected a conv or linear whose output nothing else reads)",
                   d->source, spec->line, spec->column, spec->name, what, why);
}

static NitiStatus check(const NitiDescription *d) {
  int32_t norms = 0;
  for (int32_t i = 1; i <= d->node_count; ++i) {
    const int32_t from = node_of(d, i)->inputs[0];
    const char *what = from > 0 ? node_of(d, from)->spec.name : "the network's input";
    if (!is(node_of(d, i), "norm")) continue;
    ++norms;
    if (!takes_norm(d, from)) return fail_at(d, i, "", what);
    if (readers(d, from) > 1) return fail_at(d, i, ", which other layers read too", what);
  }
  if (norms > 0) return NITI_OK;
  return niti_fail(NITI_ERROR_MODEL, "%s: model '%s' has no norm to fold", d->source, d->name);
}

/* ---- the text ---- */

static bool is_layer(const NitiYaml *item, const char *type) {
  return niti_yaml_is_word(item->kind == NITI_YAML_MAPPING && item->count == 1 ? item->keys[0] : item, type);
}

static NitiStatus fold_list(NitiYamlDocument *document, NitiYaml *list);

/* The lists within a repeat or a residual. */
static NitiStatus fold_within(NitiYamlDocument *document, const NitiYaml *item) {
  static const char *const keys[] = {"layers", "body", "shortcut"};
  if (item->kind != NITI_YAML_MAPPING || !(is_layer(item, "repeat") || is_layer(item, "residual"))) return NITI_OK;
  for (int k = 0; k < 3; ++k) {
    NitiYaml *list = niti_yaml_get(item->items[0], keys[k]);
    if (list && list->kind == NITI_YAML_SEQUENCE) NITI_TRY(fold_list(document, list));
  }
  return NITI_OK;
}

/* Nodes were checked; but a norm may begin a list whose convolution ends the list before it. */
static NitiStatus fold_list(NitiYamlDocument *document, NitiYaml *list) {
  size_t kept = 0;
  for (size_t i = 0; i < list->count; ++i) {
    NitiYaml *item = list->items[i], *before = kept > 0 ? list->items[kept - 1] : NULL;
    if (!is_layer(item, "norm")) {
      NITI_TRY(fold_within(document, item));
      list->items[kept++] = item;
      continue;
    }
    if (!before || before->kind != NITI_YAML_MAPPING || !(is_layer(before, "conv") || is_layer(before, "linear")))
      return niti_yaml_fail(item, "norm: cannot be folded: it is not in the same list as the layer that it follows");
    niti_yaml_put(document, before->items[0], "bias", niti_yaml_scalar(document, "true"));
  }
  list->count = kept;
  return NITI_OK;
}

static NitiStatus fold_model(NitiYamlDocument *document, NitiYaml *root, const char *name) {
  NitiYaml *blocks = niti_yaml_get(root, "blocks"), *layers = niti_yaml_get(root, "layers");
  char folded[NITI_NAME_MAX + 8];
  for (size_t i = 0; blocks && i < blocks->count; ++i) NITI_TRY(fold_list(document, blocks->items[i]));
  NITI_TRY(fold_list(document, layers));
  (void)snprintf(folded, sizeof folded, "%s-folded", name);
  niti_yaml_put(document, root, "name", niti_yaml_scalar(document, strlen(folded) < NITI_NAME_MAX ? folded : name));
  if (niti_yaml_get(root, "freeze")) niti_yaml_put(document, root, "freeze", niti_yaml_sequence(document));
  return NITI_OK;
}

NitiStatus niti_description_fold(NitiDescription **out, const NitiDescription *d) {
  NitiYamlDocument *document;
  *out = NULL;
  NITI_TRY(check(d));
  NITI_TRY(niti_yaml_parse(&document, d->text, d->source));
  NitiStatus status = fold_model(document, niti_yaml_root(document), d->name);
  if (status == NITI_OK) status = niti_description_from_yaml(out, document, niti_yaml_root(document), d->source, NULL);
  niti_yaml_close(document);
  return status;
}
