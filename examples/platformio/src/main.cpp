// PlatformIO's build wants a C++ file.
#include <Arduino.h>

#include "sketch.h"
