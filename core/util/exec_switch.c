/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stacks for cooperative tasks and the switch between them, told to the sanitizers. */
#include <sys/mman.h>
#include <unistd.h>

#include "util/exec_priv.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#if defined(WITH_ASAN) || defined(WITH_TSAN)
#define STACK_BYTES (1024u << 10) /* instrumented frames are several times larger */
#else
#define STACK_BYTES (256u << 10)
#endif

int ter_stack_map(struct ter_stack *stack)
{
	size_t guard_bytes = (size_t)sysconf(_SC_PAGESIZE);
	void *map;

	/* Not from ter_malloc(): a guard page below, and no fault point, for a test's failing allocation is meant for
	 * the engine. */
	map = mmap(NULL, STACK_BYTES + guard_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	if (mprotect(map, guard_bytes, PROT_NONE) < 0) {
		(void)munmap(map, STACK_BYTES + guard_bytes); /* nothing to do about it */
		return -ENOMEM;
	}
	*stack = (struct ter_stack){
		.map = map,
		.map_bytes = STACK_BYTES + guard_bytes,
		.low = (char *)map + guard_bytes,
		.bytes = STACK_BYTES,
	};
	return 0;
}

#if defined(__x86_64__)
/* Saves what the ABI says a call preserves on the stack left, and takes it from the stack entered. */
void ter_stack_jump(void **ret_from, void *to);
__asm__(".pushsection .text\n"
	".p2align 4\n"
	".globl ter_stack_jump\n"
	".hidden ter_stack_jump\n"
	".type ter_stack_jump, @function\n"
	"ter_stack_jump:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size ter_stack_jump, . - ter_stack_jump\n"
	".popsection\n");

static int context_start(struct ter_stack *stack, void (*entry)(void))
{
	void **sp = (void **)((char *)stack->low + stack->bytes);

	*--sp = NULL; /* no caller above @entry; where rsp then points is 8 below a multiple of 16, as at any function's
			 entry */
	*--sp = (void *)entry; /* what "ret" takes */
	for (unsigned reg = 0; reg < 6; reg++)
		*--sp = NULL;
	stack->context = sp;
	return 0;
}

static void context_adopt(struct ter_stack *stack)
{
}

static void context_release(struct ter_stack *stack)
{
	stack->context = NULL;
}

static void context_switch(struct ter_stack *from, struct ter_stack *to)
{
	ter_stack_jump(&from->context, to->context);
}
#else
#include <ucontext.h>

static ucontext_t *context_of(struct ter_stack *stack)
{
	if (!stack->context)
		stack->context = calloc(1, sizeof(ucontext_t));
	if (!stack->context)
		abort(); /* a test's scheduler: nothing to save */
	return stack->context;
}

static int context_start(struct ter_stack *stack, void (*entry)(void))
{
	ucontext_t *context = context_of(stack);

	if (getcontext(context) < 0)
		return -ENOMEM;
	context->uc_stack.ss_sp = stack->low;
	context->uc_stack.ss_size = stack->bytes;
	context->uc_link = NULL;
	makecontext(context, entry, 0);
	return 0;
}

static void context_adopt(struct ter_stack *stack)
{
	(void)context_of(stack);
}

static void context_release(struct ter_stack *stack)
{
	free(stack->context);
	stack->context = NULL;
}

static void context_switch(struct ter_stack *from, struct ter_stack *to)
{
	(void)swapcontext(from->context, to->context); /* fails only where the stack is too small for it */
}
#endif

int ter_stack_start(struct ter_stack *stack, void (*entry)(void))
{
#ifdef WITH_ASAN
	__asan_unpoison_memory_region(stack->low, stack->bytes); /* what the task before left */
	stack->asan_fake = NULL;
#endif
#ifdef WITH_TSAN
	stack->tsan_fiber = __tsan_create_fiber(0);
#endif
	return context_start(stack, entry);
}

void ter_stack_adopt(struct ter_stack *stack)
{
	*stack = (struct ter_stack){0};
#ifdef WITH_TSAN
	stack->tsan_fiber = __tsan_get_current_fiber();
#endif
	context_adopt(stack);
}

void ter_stack_release(struct ter_stack *stack)
{
#ifdef WITH_TSAN
	if (stack->map && stack->tsan_fiber)
		__tsan_destroy_fiber(stack->tsan_fiber);
	stack->tsan_fiber = NULL;
#endif
	context_release(stack);
}

void ter_stack_unmap(struct ter_stack *stack)
{
#ifdef WITH_ASAN
	__asan_unpoison_memory_region(stack->low, stack->bytes);
#endif
	(void)munmap(stack->map, stack->map_bytes); /* our own mapping, whole */
	stack->map = NULL;
}

/*
 * The thread's own stack is not known by its bounds; they are learnt when the first task is entered from it, and needed
 * to switch back.
 */
void ter_stack_switch(struct ter_stack *from, struct ter_stack *to, bool from_ends)
{
#ifdef WITH_ASAN
	__sanitizer_start_switch_fiber(from_ends ? NULL : &from->asan_fake, to->low, to->bytes);
#endif
#ifdef WITH_TSAN
	__tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
	context_switch(from, to);
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(from->asan_fake, NULL, NULL);
#endif
}

void ter_stack_entered(struct ter_stack *from)
{
#ifdef WITH_ASAN
	const void *low;
	size_t bytes;

	__sanitizer_finish_switch_fiber(NULL, &low, &bytes);
	if (!from->map) {
		from->low = (void *)low;
		from->bytes = bytes;
	}
#else
	(void)from;
#endif
}
