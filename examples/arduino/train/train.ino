// Arduino's build wants a sketch of the folder's name.
#include <stripes.h>

#include "sketch.h"
