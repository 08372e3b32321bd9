/* Internal to reports: what is written to the events besides scalars and histograms. */
#ifndef NITI_TRAIN_REPORT_EVENTS_H
#define NITI_TRAIN_REPORT_EVENTS_H

#include "io/events.h"
#include "train/confusion.h"
#include "train/recipe.h"

/* The recipe and its model as text, and the recipe's values as the run's settings; lists and the model's layers are text. */
NitiStatus niti_report_events_recipe(NitiEvents *events, const NitiRecipe *recipe);
/* The confusion matrix and the page of misclassified images of the split of that name as pictures. */
NitiStatus niti_report_events_confusion(NitiEvents *events, const char *split, int64_t step, const NitiConfusion *confusion);

#endif
