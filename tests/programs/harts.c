// Several harts: a spinlock (swap), an atomic counter, an lr/sc counter, an lr/sc stack that must not see ABA, and a barrier of plain loads.
#include "console.h"
#ifndef HARTS
#define HARTS 8
#endif
#ifndef ROUNDS
#define ROUNDS 50
#endif

static volatile int lock;
static volatile long guarded;            // written under the lock only
static long added, reserved;
static volatile int arrived[HARTS];

static void acquire(void)
{
#ifdef NO_LOCK                           // two harts can find it open at once
    while (lock) { }
    lock = 1;
#else
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) while (lock) { }
#endif
}

static void release(void) { __atomic_store_n(&lock, 0, __ATOMIC_RELEASE); }

static void add_reserved(long *p)
{
    long old, failed;
    do
        __asm__ volatile("lr.d.aq %0, (%2)\n addi %0, %0, 1\n sc.d.rl %1, %0, (%2)" : "=&r"(old), "=&r"(failed) : "r"(p) : "memory");
    while (failed);
}

// a stack of nodes: pop by lr/sc is right only if a store of the same value in between makes sc fail
struct node { struct node *next; long uses; };
static struct node nodes[4], *top;

static struct node *pop(void)
{
    struct node *n, *next;
    long failed;
    do {
        __asm__ volatile("lr.d.aq %0, (%1)" : "=r"(n) : "r"(&top) : "memory");
        if (!n) return 0;
        next = n->next;
        __asm__ volatile("sc.d.rl %0, %1, (%2)" : "=&r"(failed) : "r"(next), "r"(&top) : "memory");
    } while (failed);
    return n;
}

static void push(struct node *n)
{
    long failed;
    struct node *old;
    do {
        __asm__ volatile("lr.d.aq %0, (%1)" : "=r"(old) : "r"(&top) : "memory");
        n->next = old;                   // (a store between: not a constrained loop, but to another line)
        __asm__ volatile("sc.d.rl %0, %1, (%2)" : "=&r"(failed) : "r"(n), "r"(&top) : "memory");
    } while (failed);
}

static void meet(int hart, int round)
{
    arrived[hart] = round;
    __sync_synchronize();
    for (int h = 0; h < HARTS; h++) while (arrived[h] < round) { }
    __sync_synchronize();
}

int program(int hart)
{
    if (hart == 0) for (int i = 0; i < 4; i++) push(&nodes[i]);
    meet(hart, 1);
    for (int i = 0; i < ROUNDS; i++) {
        acquire();
        guarded = guarded + 1;
        release();
        __atomic_fetch_add(&added, hart, __ATOMIC_RELAXED);
        add_reserved(&reserved);
        struct node *n = pop();
        if (n) { n->uses++; push(n); }
    }
    meet(hart, 2);
    if (hart) return 0;
    long left = 0, uses = 0;
    for (struct node *n; (n = pop()); left++) uses += n->uses;
    print("guarded %ld added %ld reserved %ld nodes %ld\n", guarded, added, reserved, left);
    return guarded != HARTS * ROUNDS || added != ROUNDS * HARTS * (HARTS - 1) / 2 || reserved != HARTS * ROUNDS || left != 4 || uses == 0;
}
