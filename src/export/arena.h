/* The arena of an exported network: lifetimes of its spaces, and the places at which as few bytes as possible are enough. */
#ifndef NITI_EXPORT_ARENA_H
#define NITI_EXPORT_ARENA_H

#include "export/plan.h"
#include "program/places.h"

enum {
  NITI_EXPORT_COLUMN_BYTES = 9
}; /* per value of a window: four columns, of int16 where a processor wants them, and one of int8 */

/* Appends a space and returns its number. */
int32_t niti_export_space(NitiExportPlan *plan, int64_t bytes);
/* The space whose memory a space uses. */
int32_t niti_export_storage(const NitiExportPlan *plan, int32_t space);
/* The bytes that are alive during a step; step_count: at the end. */
int64_t niti_export_alive(const NitiExportPlan *plan, int32_t step);
/* Decides which tensors share memory, and gives each storage an offset. */
NitiStatus niti_export_place(NitiExportPlan *plan);
/* The same; where no places are within so many bytes, at once, with arena_bytes above that and no offsets. */
NitiStatus niti_export_place_within(NitiExportPlan *plan, int64_t bytes);
/* Moves one storage to the lowest place that the others leave; arena_bytes: where it ends. */
void niti_export_replace(NitiExportPlan *plan, int32_t space);
/* As niti_export_place, with ten times the attempts at a smaller arena. */
NitiStatus niti_export_place_well(NitiExportPlan *plan);

#endif
