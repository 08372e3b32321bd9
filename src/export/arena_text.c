/* Writes down an exported network's arena: what lies where, and during which steps. */
#include <inttypes.h>
#include <string.h>

#include "export/arena.h"
#include "export/source.h"

void niti_export_step_name(char *out, size_t size, const NitiExportPlan *plan, int32_t step) {
  static const char *const kinds[] = {"forward", "backward", "update",  "forward", "forward", "backward",
                                      "forward", "backward", "forward", "forward", "loss"};
  const NitiOperation *o = &plan->program->operations[plan->steps[step].operation];
  (void)snprintf(out, size, "%s of %.60s", kinds[plan->steps[step].kind],
                 o->layer > 0 ? plan->program->layers[o->layer] : "the network");
}

static void write_steps(FILE *to, const NitiExportPlan *plan) {
  char name[96];
  fprintf(to, " step    alive  what it does\n");
  for (int32_t i = 0; i < plan->step_count; ++i) {
    niti_export_step_name(name, sizeof name, plan, i);
    fprintf(to, "%5" PRId32 " %8" PRId64 "  %s\n", i, niti_export_alive(plan, i), name);
  }
  fprintf(to, "%5" PRId32 " %8" PRId64 "  the end: predictions are read\n", plan->step_count,
          niti_export_alive(plan, plan->step_count));
}

/* What a step uses a scratch space for. */
static void write_scratch(FILE *to, const NitiExportPlan *plan, int32_t space) {
  static const char *const uses[NITI_EXPORT_USES] = {
      [NITI_EXPORT_HIGH] = "upper bytes", [NITI_EXPORT_WINNERS] = "winners for three shifts"};
  char name[96];
  for (int32_t i = 0; i < plan->step_count; ++i) {
    for (int k = 0; k < NITI_EXPORT_USES; ++k) {
      if (plan->steps[i].use[k] != space) continue;
      const NitiExportKind kind = plan->steps[i].kind;
      const char *work = kind == NITI_EXPORT_CONV_FORWARD ? "columns"
                         : kind == NITI_EXPORT_UPDATE     ? "a row of sums"
                                                          : "rows of sums";
      niti_export_step_name(name, sizeof name, plan, i);
      fprintf(to, "%s: %s", name, uses[k] ? uses[k] : work);
      if (kind == NITI_EXPORT_UPDATE && plan->steps[i].kept > 0)
        fprintf(to, ", and those of %" PRId32 " channels", plan->steps[i].kept);
      return;
    }
  }
}

static void write_names(FILE *to, const NitiExportPlan *plan, int32_t space) {
  const char *before = "";
  for (int32_t t = 0; t < plan->program->tensor_count; ++t) {
    if (niti_export_storage(plan, t) != space) continue;
    fprintf(to, "%s%s", before, plan->program->tensors[t].name);
    before = ", ";
  }
  if (space >= plan->program->tensor_count) write_scratch(to, plan, space);
}

static void write_spaces(FILE *to, const NitiExportPlan *plan) {
  fprintf(to, "offset    bytes    steps  what lies there\n");
  for (int32_t s = 0; s < plan->space_count; ++s) {
    const NitiExportSpace *space = &plan->spaces[s];
    if (space->storage != s || space->last < 0) continue;
    fprintf(to, "%6" PRId64 " %8" PRId64 " %3" PRId32 "..%-3" PRId32 "  ", space->offset, space->bytes, space->first,
            space->last);
    write_names(to, plan, s);
    fprintf(to, "\n");
  }
}

static void write_plan(FILE *to, const NitiExportPlan *plan, const char *what) {
  fprintf(to, "\n%s: %" PRId64 " bytes\n\n", what, plan->arena_bytes);
  write_steps(to, plan);
  fprintf(to, "\n");
  write_spaces(to, plan);
}

void niti_export_write_arena(FILE *to, const NitiExport *e) {
  fprintf(to, "The arena of %s: %" PRId64 " bytes, at batch %" PRId32 ". Tensors whose steps do not overlap share memory.\n",
          e->name, e->report.arena, e->report.batch);
  if (niti_export_trains(e)) write_plan(to, &e->training, "A training step");
  write_plan(to, &e->inference, "A prediction");
}
